"""Who may ask: the Host and Origin of a request, and its key.

A page that a browser has open may send requests to this machine. It cannot choose its Origin; and where its own name
was made to point here (DNS rebinding), it is the Host that tells.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from attrs import frozen
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sis_server.answering import refusal
from sis_server.errors import ApiError

LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))
OPEN_PATHS = frozenset(("/", "/health"))
OPEN_FOLDER = "/page/"


@frozen
class Rules:
    """Who may ask.

    Attributes:
        keys: any of them opens; empty where none is asked for.
        hosts: names, without ports, that a request may call this server; empty for any.
        origins: pages of other servers that may ask.
    """

    keys: Sequence[str] = ()
    hosts: frozenset[str] = LOOPBACK
    origins: frozenset[str] = frozenset()


class Guard:
    """ASGI middleware that lets through only what `Rules` allow. The salt of the key goes into ``state.salt``."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._digests = [_digest(key) for key in rules.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._check_place(headers)
            scope.setdefault("state", {})["salt"] = self._salt(headers, scope["path"])
            _check_type(headers, scope["method"])
        except ApiError as error:
            body = ApiError.anthropic if scope["path"].startswith("/v1/messages") else ApiError.openai
            return await refusal(error, body)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check_place(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise ApiError(400, "there is not one Host")
        if self._rules.hosts and _without_port(hosts[0]) not in self._rules.hosts:
            raise ApiError(403, f"this server is not called {hosts[0]!r:.100}: --allow-host allows a name")
        for origin in headers.getlist("origin"):
            own = origin in (f"http://{hosts[0]}", f"https://{hosts[0]}")
            if not own and origin not in self._rules.origins:
                raise ApiError(403, f"pages of {origin!r:.100} may not ask: --allow-origin allows them")

    def _salt(self, headers: Headers, path: str) -> str:
        if not self._digests:
            return ""
        given = _digest(_key(headers))
        found = [hmac.compare_digest(given, digest) for digest in self._digests]  # all, whichever fits
        if any(found):
            return given.hex()
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return ""
        raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")


def _key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _check_type(headers: Headers, method: str) -> None:
    """A browser may send text/plain anywhere without asking; JSON it may not."""
    if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the content type is not application/json")
    coding = headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise ApiError(415, f"a body that is coded as {coding!r:.60} is not read: send plain JSON")
