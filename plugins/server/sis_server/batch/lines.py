"""Requests in a file, one JSON object a line.

Facts of the format: OpenAI's API reference, "Batch" (platform.openai.com/docs/api-reference/batch/request-input).
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sis_core.errors import SourceError
from sis_server.errors import ApiError
from sis_server.reading import read_object

PLACES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
SEEDED = PLACES[:2]
LARGEST = 8 << 20  # bytes of a line, as of a request's body
FIELDS = {"custom_id", "method", "url", "body"}


@frozen
class Line:
    """One request.

    Attributes:
        custom_id: what its sender calls it.
        digest: of custom_id and line: every id and a seed that was not given follow from it.
        place: the API's path.
        body: of the request.
        error: why it cannot be run, or None.
    """

    custom_id: str
    digest: str
    place: str = ""
    body: dict[str, Any] = field(factory=dict)
    error: ApiError | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """The requests in order; blank lines are none. SourceError for a file or a line that cannot be read at all."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(LARGEST + 1), b""), 1):
                if number == 1:
                    text = text.removeprefix(codecs.BOM_UTF8)
                if len(text) > LARGEST:
                    raise SourceError(f"has more than {LARGEST >> 20} MiB", where=f"{path}, line {number}")
                if text.strip():
                    yield _line(text.strip(), f"{path}, line {number}")
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=str(path)) from None


def check_lines(path: Path) -> int:
    """How many there are; SourceError for the first whose custom_id is missing, or stands before already."""
    seen: dict[bytes, int] = {}
    for n, line in enumerate(read_lines(path), 1):
        key = hashlib.sha256(line.custom_id.encode("utf-8", "surrogatepass")).digest()[:16]
        if key in seen:
            raise SourceError(
                f"the custom_id {line.custom_id[:80]!r} stands twice: requests {seen[key]} and {n}",
                where=str(path),
                fix="give each request an id of its own",
            )
        seen[key] = n
    return len(seen)


def _line(text: bytes, where: str) -> Line:
    try:
        value = read_object(text)
    except ApiError as error:
        raise SourceError(f"is no request: {error.message}", where=where, fix="write one JSON object a line") from None
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise SourceError("has no custom_id", where=where, fix="give each request an id of its own")
    digest = hashlib.sha256(json.dumps([custom_id, value], sort_keys=True).encode()).hexdigest()
    try:
        place, body = _request(value)
    except ApiError as error:
        return Line(custom_id, digest, error=error)
    body = {name: value for name, value in body.items() if name != "model"}
    if place in SEEDED and body.get("seed") is None:
        body["seed"] = int(digest[:15], 16)
    return Line(custom_id, digest, place, body)


def _request(value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    place, body = value.get("url"), value.get("body")
    if unknown := sorted(value.keys() - FIELDS):
        raise ApiError(400, f"there is no field {unknown[0]!r:.80}", param=unknown[0][:80])
    if value.get("method", "POST") != "POST":
        raise ApiError(400, "the method is not POST", param="method")
    if place not in PLACES:
        raise ApiError(400, f"the url is none of {', '.join(PLACES)}", param="url")
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object", param="body")
    if body.get("stream"):
        raise ApiError(400, "an answer in a file cannot be streamed", param="stream")
    return str(place), body
