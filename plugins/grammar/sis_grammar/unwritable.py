"""Characters that JSON can only write with ``\\u``, an escape that `definition` switches off.

Where such a character stands alone in a constant or a pattern llguidance 1.9.1 leaves it out, so that ``"a\\u0000b"``
becomes ``"ab"``. Those schemas are refused. Among other characters of a class it is merely never chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

UNWRITABLE = frozenset(map(chr, (*range(0x08), 0x0B, *range(0x0E, 0x20), 0x7F)))
ATOM = re.compile(
    r"\\(?:[xuU]\{0*([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|(.)", re.DOTALL
)
LETTERS = {"a": "\a", "v": "\v"}


def unwritable_in(schema: dict[str, Any]) -> tuple[str, str] | None:
    """The keyword of one subschema that needs such a character, and the character; None where there is none."""
    for keyword in ("const", "enum"):
        for text in _texts(schema.get(keyword)):
            if found := UNWRITABLE.intersection(text):
                return keyword, min(found)
    patterns = schema.get("patternProperties")
    for keyword, given in (("pattern", [schema.get("pattern")]), ("patternProperties", patterns or ())):
        for pattern in given if isinstance(given, Iterable) else ():
            if isinstance(pattern, str) and (alone := next(_alone(pattern), None)):
                return keyword, alone
    return None


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, names among them."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _alone(pattern: str) -> Iterator[str]:
    """The unwritable characters of a regular expression that may stand alone: outside of a class or as all of one."""
    depth, members = 0, list[str]()
    for match in ATOM.finditer(pattern):
        *codes, letter, plain = match.groups()
        code = next((code for code in codes if code), None)
        char = chr(min(int(code, 16), 0x10FFFF)) if code else LETTERS.get(letter or "", "\\") if letter else plain
        if plain == "[":
            depth += 1
        elif plain == "]" and depth:
            depth -= 1
            if not depth:
                yield from _alone_in_class(members)
                members = []
        elif depth:
            members.append(char)
        elif char in UNWRITABLE:
            yield char


def _alone_in_class(members: list[str]) -> Iterator[str]:
    unwritable = UNWRITABLE.intersection(members)
    others = set(members) - unwritable - {"-"}
    narrow = "&" in others or (members[:1] == ["^"] and "\U0010ffff" in others)
    if unwritable and (narrow or (len(unwritable) == 1 and not others)):
        yield min(unwritable)
