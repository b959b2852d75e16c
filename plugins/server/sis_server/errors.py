"""What goes wrong with a request, as a status and a JSON body that OpenAI's and Anthropic's clients understand."""

from __future__ import annotations

import logging
from typing import Any

from sis_core.errors import (
    ChatError,
    ClosedError,
    ContextError,
    MemoryLimitError,
    PluginError,
    SamplerError,
    SisError,
    TokenizerError,
)

log = logging.getLogger(__name__)
RETRY_AFTER = 5  # seconds


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        code: OpenAI's word for it, where there is one.
        param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def kind(self) -> str:
        """OpenAI's ``type``."""
        names = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
        return names.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(RETRY_AFTER)} if self.status == 503 else {}

    def openai(self) -> dict[str, Any]:
        """The body of OpenAI's APIs."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def of_stream(self) -> dict[str, Any]:
        """The event of OpenAI's Responses."""
        return {"type": "error", "code": self.code or self.kind, "message": self.message, "param": self.param}

    def anthropic(self) -> dict[str, Any]:
        """The body of Anthropic's."""
        kind = {"server_error": "overloaded_error" if self.status == 503 else "api_error"}.get(self.kind, self.kind)
        return {"type": "error", "error": {"type": kind, "message": self.message}}


def of(error: Exception) -> ApiError:
    """Any error as one of a request: ours say whose fault it was, what is unforeseen is the server's."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextError):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, ClosedError | MemoryLimitError):
        return ApiError(503, str(error))
    theirs = isinstance(error, SamplerError | ChatError | TokenizerError | PluginError)
    if isinstance(error, SisError):  # a bare one with a cause is a stranger's code that failed
        return ApiError(400 if theirs or (type(error) is SisError and not error.__cause__) else 500, str(error))
    return ApiError(500, f"{type(error).__name__}; the server's log says more")


def logged(error: Exception) -> ApiError:
    """The same; what is unforeseen is logged with its traceback."""
    found = of(error)
    if not isinstance(error, ApiError | SisError):
        log.error("a request failed", exc_info=error)
    return found
