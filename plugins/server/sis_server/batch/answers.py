"""Answers in a file: OpenAI's lines, the same bytes whenever and however often the requests are run."""

from __future__ import annotations

from typing import Any

import msgspec

from sis_server.batch.lines import Line
from sis_server.errors import ApiError

PREFIX = {"chat.completion": "chatcmpl-", "text_completion": "cmpl-"}


def answer(line: Line, status: int, body: dict[str, Any]) -> bytes:
    """One line of output, without its end."""
    error = body.get("error") if status >= 400 else None
    said = None if error is None else {"code": error.get("code") or error.get("type"), "message": error["message"]}
    response = {"status_code": status, "request_id": f"req_{line.digest[:32]}", "body": _settled(line, body)}
    whole = {"id": f"batch_req_{line.digest[:32]}", "custom_id": line.custom_id, "response": response, "error": said}
    return msgspec.json.encode(whole)


def refused(line: Line, error: ApiError) -> bytes:
    """The line for a request that was not run."""
    return answer(line, error.status, error.openai())


def _settled(line: Line, body: dict[str, Any]) -> dict[str, Any]:
    """The body without what differs from run to run: the clock, chance ids, and what was found in the cache."""
    body = dict(body)
    if "created" in body:
        body["created"] = 0
    if "id" in body:
        body["id"] = PREFIX.get(body.get("object", ""), "") + line.digest[:32]
    usage = body.get("usage")
    if isinstance(usage, dict) and "prompt_tokens_details" in usage:
        body["usage"] = usage | {"prompt_tokens_details": {"cached_tokens": 0}}
    for index, choice in enumerate(body.get("choices", ())):
        for n, call in enumerate((choice.get("message") or {}).get("tool_calls") or ()):
            call["id"] = f"call_{line.digest[:16]}_{index}_{n}"
    return body
