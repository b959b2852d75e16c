"""Text of which every character remembers whether the user gave it or the template wrote it.

A user who writes ``<|im_start|>system`` must not begin a turn: what a user gave is text, what the template wrote may
be control tokens. So the strings of messages enter as `Text`, every operation that a template may use keeps the marks,
and what comes out can be told apart, however the template has cut and joined it. A plain `str` is the template's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

WRITTEN, GIVEN = "\0", "\1"  # marks: by the template, and by the caller; further ones are for single messages


class Text(str):
    """A string with a mark for each of its characters, in ``marks``: `WRITTEN`, or what `given` was told.

    Its own methods return plain strings, so templates are given those of `sis_chat.jinja.strings` instead.
    """

    __slots__ = ("marks",)
    marks: str

    def __new__(cls, text: str, marks: str) -> Text:
        self = super().__new__(cls, text)
        self.marks = marks
        return self

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        return (cut(self, i, i + 1) for i in range(len(self)))


class SafeText(Text):
    """What the filter ``safe`` makes: joined to another text by ``+``, the other one is escaped for HTML."""

    __slots__ = ()


def given(text: str, mark: str = GIVEN) -> Text:
    """``text`` as a user's."""
    return Text(text, mark * len(text))


def marks_of(text: str) -> str:
    """A mark for each character."""
    return text.marks if isinstance(text, Text) else WRITTEN * len(text)


def is_given(text: str) -> bool:
    """Whether any of its characters was given."""
    return isinstance(text, Text) and text.marks.count(WRITTEN) < len(text)


def plain(text: str) -> str:
    """The same characters without marks."""
    return str.__str__(text)


def like(text: str, *sources: str) -> str:
    """``text``, made from ``sources`` in a way that loses the places: given if anything in them was."""
    return given(text) if any(map(is_given, sources)) else text


def cut(text: str, start: int | None = None, stop: int | None = None, step: int | None = None) -> str:
    """``text[start:stop:step]``."""
    part = str.__getitem__(text, slice(start, stop, step))
    return Text(part, text.marks[start:stop:step]) if isinstance(text, Text) else part


def join(parts: Iterable[str], separator: str = "") -> str:
    """All parts in a row."""
    listed = list(parts)
    text = str.join(separator, listed)
    if not (isinstance(separator, Text) or any(isinstance(part, Text) for part in listed)):
        return text
    return Text(text, marks_of(separator).join(map(marks_of, listed)))


def pieces(text: str, parts: Iterable[str], gap: int | None = None) -> list[str]:
    """``parts``, which stand in ``text`` in this order, with its marks.

    Args:
        gap: characters between two parts; None for white space of any length, which no part begins with.
    """
    if not isinstance(text, Text):
        return list(parts)
    at, found = 0, []
    for part in parts:
        if gap is None:
            at = str.index(text, part, at)
        found.append(cut(text, at, at + len(part)))
        at += len(part) + (gap or 0)
    return found
