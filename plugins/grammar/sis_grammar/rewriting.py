"""Changing a schema everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
DATA = frozenset({"const", "enum", "default", "examples"})  # what these hold is no schema


def rewritten(value: Any, change: Callable[[Schema], Schema]) -> Any:
    """A copy in which ``change`` was made to every object that may be a schema, the outer before the inner."""
    if isinstance(value, list):
        return [rewritten(inner, change) for inner in value]
    if not isinstance(value, dict):
        return value
    return {key: inner if key in DATA else rewritten(inner, change) for key, inner in change(value).items()}
