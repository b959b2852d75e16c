"""What Python is given is held to the rules that the command line holds its options to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sis_core.errors import SisError, TokenizerError

_NAMES: dict[Any, str] = {bool: "True or False", str: "a text", Callable: "a function"}


def check_option(
    name: str,
    value: Any,
    *,
    kind: Any = None,
    least: int | None = None,
    most: int | None = None,
    choices: Sequence[str] | None = None,
    words: Sequence[str] = (),
    optional: bool = False,
) -> None:
    """SisError, with the option's name, for a value that breaks its rule.

    Args:
        kind: the class, or the classes, that it must be an instance of; int takes everything that is a whole number,
            such as numpy's, and no bool.
        least: the smallest whole number allowed.
        most: the largest.
        choices: the only texts allowed.
        words: texts that may stand for a number.
        optional: whether it may be None.
    """
    if (value is None and optional) or (isinstance(value, str) and value in words):
        return
    if choices is not None:
        if not isinstance(value, str) or value not in choices:
            raise SisError(f"is {value!r:.60}, but must be {' or '.join(choices)}", where=name)
        return
    if least is not None or most is not None or kind is int:
        _check_number(name, value, least, most, words)
    elif kind is not None:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, (*kinds, np.bool_) if bool in kinds else kinds):
            names = " or ".join(_NAMES.get(each, f"a {each.__name__}") for each in kinds)
            raise SisError(f"is {value!r:.60}, but must be {names}", where=name)


def _check_number(name: str, value: Any, least: int | None, most: int | None, words: Sequence[str]) -> None:
    number = _whole(value)
    if number is None:
        raise SisError(f"is {value!r:.60}, but must be {' or '.join(['a whole number', *words])}", where=name)
    if least is not None and number < least:
        raise SisError(f"is {number}, but must be at least {least}", where=name)
    if most is not None and number > most:
        raise SisError(f"is {number}, but must be at most {most}", where=name)


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def several_texts(name: str, given: Any) -> tuple[str, ...]:
    """One text or several, as several; SisError for anything else, and for an empty one."""
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else None
    if found is None or not all(isinstance(text, str) for text in found):
        raise SisError(f"is {given!r:.60}, but must be a text or several", where=name)
    if "" in found:
        raise SisError("is empty", where=name, fix="leave it out to go on without one")
    return found


def several(name: str, given: Any) -> list[Any]:
    """The elements of what must be several; SisError for one text, and for what cannot be gone through."""
    if isinstance(given, str | bytes | bytearray):
        raise SisError("is one text, not several", where=name, fix="give a list")
    if not isinstance(given, Iterable):
        raise SisError(f"is {given!r:.60}, but must be several", where=name, fix="give a list")
    return list(given)


def token_ids(given: Iterable[int], where: str = "prompt", what: str = "token ids") -> list[int]:
    """Ids as a list of Python's ints; TokenizerError for what is no sequence of whole numbers: bytes are none.

    ``what`` may be given, in words.
    """
    if isinstance(given, str | bytes | bytearray | memoryview) or not isinstance(given, Iterable):
        raise TokenizerError(f"is {given!r:.60}, but must be {what}", where=where, fix="give a list of whole numbers")
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "iu":
        ids: list[int] = given.tolist()
        return ids
    ids = list(given)
    try:
        found = list(map(operator.index, ids))
    except TypeError:
        found = []
    if len(found) != len(ids) or bool in set(map(type, ids)):
        wrong = next(i for i, token in enumerate(ids) if _whole(token) is None)
        raise TokenizerError(
            f"element {wrong} is {ids[wrong]!r:.60}, not a token id", where=where, fix="give a list of whole numbers"
        )
    return found
