"""JSON from strangers: bounded, and with one meaning."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import msgspec

from sis_server.errors import ApiError

MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)  # one that never closes too, so that none is tried again
_BRACKET = re.compile(rb"[\[\]{}]")


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds.

    ApiError 400 for what is no JSON (NaN, Infinity, 1e400 and lone surrogates among it), for nesting deeper than
    `MAX_DEPTH`, for a name that stands twice in one object, and for anything but an object.
    """
    _check_depth(body)
    try:
        value = msgspec.json.decode(body)
        json.loads(body, object_pairs_hook=_check_unique)  # msgspec keeps the last of two
    except ApiError:
        raise
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    return value


def _check_depth(body: bytes) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ApiError(400, f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ApiError(400, f"the name {twice!r:.60} stands twice in one object", param=twice[:60])
