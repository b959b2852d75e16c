"""Requests to the application in this process: no socket, no client."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message


async def post(app: ASGIApp, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the answer to a POST."""
    data = msgspec.json.encode(body)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": None, "server": None,
    }  # fmt: skip
    status, parts, sent = 0, bytearray(), False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": data, "more_body": False}
        return await asyncio.Future()  # nobody leaves

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, msgspec.json.decode(bytes(parts))
