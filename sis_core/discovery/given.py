"""What an author may give to the fields of a layout; FormatError, saying which and what it should be, for the rest."""

from __future__ import annotations

from math import isfinite
from reprlib import repr as shown
from typing import Any

from sis_core.errors import FormatError


def check_whole(owner: str, least: int, most: int | None = None, **fields: Any) -> None:
    """Whole numbers from ``least`` on, to ``most``."""
    span = f"from {least} on" if most is None else f"from {least} to {most}"
    for name, value in fields.items():
        if type(value) is not int or value < least or (most is not None and value > most):
            raise _wrong(owner, name, value, f"a whole number {span}")


def check_number(owner: str, **fields: Any) -> None:
    """Finite numbers, but 0."""
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value or not isfinite(value):
            raise _wrong(owner, name, value, "a finite number that is not 0")


def check_kind(owner: str, kinds: type | tuple[type, ...], words: str, **fields: Any) -> None:
    """Values of some type, in ``words``."""
    for name, value in fields.items():
        if not isinstance(value, kinds):
            raise _wrong(owner, name, value, words)


def _wrong(owner: str, name: str, value: Any, wanted: str) -> FormatError:
    return FormatError(f"{name} of {owner} is {shown(value)}", where="layout", fix=f"give {wanted}")
