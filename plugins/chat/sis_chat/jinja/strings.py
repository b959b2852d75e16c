"""The methods of strings that a template may call. Each counts what it makes, and keeps the marks of `Text`."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

from sis_chat.jinja.meter import CeilingError, Meter, character_bytes
from sis_chat.jinja.text import Text, cut, is_given, join, like, pieces

MAX_PIECES = 100_000
PIECE_BYTES = 160
MAX_WIDTH = 1000
_SPEC = re.compile(r"([<>^=]?[-+ ]?0?\d{0,3}[,_]?(\.\d{1,2})?[a-zA-Z%]?)")


def require_text(value: Any) -> str:
    """``value``, if it is a string; TypeError else."""
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    return value


def strip(meter: Meter, text: str, chars: str | None = None) -> str:
    return lstrip(meter, rstrip(meter, text, chars), chars)


def lstrip(meter: Meter, text: str, chars: str | None = None) -> str:
    meter.hold(len(text) * character_bytes(text))
    return cut(text, len(text) - len(str.lstrip(text, chars)))


def rstrip(meter: Meter, text: str, chars: str | None = None) -> str:
    meter.hold(len(text) * character_bytes(text))
    return cut(text, 0, len(str.rstrip(text, chars)))


def removeprefix(meter: Meter, text: str, prefix: str) -> str:
    return cut(text, len(prefix)) if str.startswith(text, prefix) else text


def removesuffix(meter: Meter, text: str, suffix: str) -> str:
    return cut(text, 0, len(text) - len(suffix)) if suffix and str.endswith(text, suffix) else text


def split(meter: Meter, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _split(str.split, meter, text, sep, maxsplit)


def rsplit(meter: Meter, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    return _split(str.rsplit, meter, text, sep, maxsplit)


def _split(how: Callable[..., list[str]], meter: Meter, text: str, sep: str | None, maxsplit: int) -> list[str]:
    bounded = 0 <= maxsplit <= MAX_PIECES
    parts = how(text, sep, maxsplit if bounded else MAX_PIECES)
    if not bounded and len(parts) > MAX_PIECES:
        raise CeilingError(f"it splits a text into more than {MAX_PIECES} pieces")
    meter.hold(len(text) * character_bytes(text) + PIECE_BYTES * len(parts))
    return pieces(text, parts, None if sep is None else len(sep))


def splitlines(meter: Meter, text: str, keepends: bool = False) -> list[str]:
    if str.count(text, "\n") + str.count(text, "\r") > MAX_PIECES:
        raise CeilingError(f"it splits a text into more than {MAX_PIECES} pieces")
    parts = str.splitlines(text, bool(keepends))
    meter.hold(len(text) * character_bytes(text) + PIECE_BYTES * len(parts))
    return pieces(text, parts, 0 if keepends else None)


def partition(meter: Meter, text: str, sep: str) -> tuple[str, ...]:
    meter.hold(len(text) * character_bytes(text))
    return tuple(pieces(text, str.partition(text, sep), 0))


def rpartition(meter: Meter, text: str, sep: str) -> tuple[str, ...]:
    meter.hold(len(text) * character_bytes(text))
    return tuple(pieces(text, str.rpartition(text, sep), 0))


def replace(meter: Meter, text: str, old: str, new: str, count: int = -1) -> str:
    require_text(new)
    found = str.count(text, old)
    if 0 <= count < found:
        found = count
    meter.hold((len(text) + found * max(len(new) - len(old), 0)) * character_bytes(text, new))
    if not found:
        return text
    if not old:
        return like(str.replace(text, old, new, count), text, new)
    if found > MAX_PIECES:
        return like(str.replace(text, old, new, count), text, new)
    return join(pieces(text, str.split(text, old, count), len(old)), new)


def join_all(meter: Meter, separator: str, parts: Iterable[Any]) -> str:
    listed = []
    for part in parts:
        listed.append(require_text(part))
        meter.hold((len(part) + len(separator)) * character_bytes(part, separator))
    return join(listed, separator)


def format_(meter: Meter, text: str, /, *args: Any, **named: Any) -> str:
    """``str.format`` with plain fields only: none that walks attributes or items, no width over `MAX_WIDTH`."""
    if is_given(text):
        raise SecurityError("a format that the user wrote is not obeyed")
    parts, automatic = [], 0
    for literal, name, spec, conversion in string.Formatter().parse(text):
        parts.append(literal)
        if name is None:
            continue
        if name and not name.isalnum():
            raise SecurityError(f"the field {{{name}}} of format() is not allowed")
        if conversion or not _SPEC.fullmatch(spec or ""):
            raise SecurityError(f"the format {spec or '!' + str(conversion)!r} is not allowed")
        if not name:
            value, automatic = args[automatic], automatic + 1
        else:
            value = args[int(name)] if name.isdecimal() else named[name]
        if not isinstance(value, str | int | float):
            raise SecurityError(f"format() of a {type(value).__name__} is not allowed")
        meter.hold(MAX_WIDTH + (len(value) * character_bytes(value) if isinstance(value, str) else 0))
        if isinstance(value, str):
            parts.append(value if not spec else like(format(value, spec), value))
        else:
            parts.append(format(value, spec or ""))
    return join(parts)


def _whole(method: Callable[[str], str]) -> Callable[[Meter, str], str]:
    """A method that changes characters. None vanishes, so that the marks hold where the length does."""

    def apply(meter: Meter, text: str) -> str:
        meter.hold(len(text) * character_bytes(text))
        changed = method(text)
        if isinstance(text, Text) and len(changed) == len(text):
            return Text(changed, text.marks)
        return like(changed, text)

    return apply


def _asked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that answers with a number or a truth."""

    def apply(meter: Meter, text: str, *args: Any) -> Any:
        meter.spend(1 + len(text) // 1024)
        return method(text, *args)

    return apply


METHODS: Mapping[str, Callable[..., Any]] = {
    "strip": strip,
    "lstrip": lstrip,
    "rstrip": rstrip,
    "removeprefix": removeprefix,
    "removesuffix": removesuffix,
    "split": split,
    "rsplit": rsplit,
    "splitlines": splitlines,
    "partition": partition,
    "rpartition": rpartition,
    "replace": replace,
    "join": join_all,
    "format": format_,
    **{name: _whole(getattr(str, name)) for name in ("lower", "upper", "title", "capitalize")},
    **{
        name: _asked(getattr(str, name))
        for name in (
            "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "isalpha", "isdigit", "isdecimal",
            "isnumeric", "isalnum", "isspace", "isupper", "islower", "istitle", "isidentifier", "isprintable",
        )
    },
}  # fmt: skip
