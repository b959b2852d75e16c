"""Texts compared in whole tags and words, so that what two of them share never ends inside one."""

from __future__ import annotations

import re

_ATOM = re.compile(r"<[^<>\s]+>|</?[^<>\s\"'=]+|\w+|\s|.", re.DOTALL)


def atoms(text: str) -> list[str]:
    """A text in tags, words, spaces and signs, so that what two texts share never ends inside a tag."""
    return _ATOM.findall(text)


def common_prefix(a: str, b: str) -> str:
    """The longest beginning that both have, in whole atoms."""
    shared = []
    for one, other in zip(atoms(a), atoms(b), strict=False):
        if one != other:
            break
        shared.append(one)
    return "".join(shared)


def common_suffix(a: str, b: str) -> str:
    """The longest end that both have, in whole atoms."""
    shared = []
    for one, other in zip(reversed(atoms(a)), reversed(atoms(b)), strict=False):
        if one != other:
            break
        shared.append(one)
    return "".join(reversed(shared))


def last_mark(header: str) -> int:
    """Where the tag at a text's end begins, or two tags around one word; its end where there is none."""
    parts = atoms(header)
    at = len(header)
    for i in range(len(parts) - 1, -1, -1):
        at -= len(parts[i])
        if is_mark(parts[i]):
            if i > 1 and parts[i - 1].isalnum() and is_mark(parts[i - 2]):
                return at - len(parts[i - 1]) - len(parts[i - 2])
            return at
    return len(header)


def first_mark(text: str) -> str:
    """The text up to its first tag, with it."""
    found = ""
    for atom in atoms(text):
        found += atom
        if is_mark(atom):
            break
    return found


def is_mark(atom: str) -> bool:
    return len(atom) > 2 and not atom.isalnum()
