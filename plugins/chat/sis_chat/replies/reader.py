"""Text that comes in pieces, read by generators: each yields where it must see more."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
Emit = Callable[[str], None]


def drop(text: str) -> None:
    """An `Emit` for what nobody wants."""


class Reader:
    """The part of a reply that came and was not read yet."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self._kept: list[str] | None = None

    def take(self, n: int) -> str:
        """The next ``n`` characters, which are there."""
        taken, self.text = self.text[:n], self.text[n:]
        if self._kept is not None:
            self._kept.append(taken)
        return taken

    def untake(self, text: str) -> None:
        """Give back what was taken last."""
        self.text = text + self.text
        if self._kept is not None:
            kept = "".join(self._kept)
            self._kept = [kept[: len(kept) - len(text)]]

    def keep(self) -> None:
        """From now on remember what is taken, for `back` or `forget`."""
        self._kept = []

    def forget(self) -> None:
        """What was taken is settled."""
        self._kept = None

    def back(self) -> None:
        """Untake what was taken since `keep`."""
        self.text = "".join(self._kept or ()) + self.text
        self._kept = None

    def peek(self) -> Steps[str]:
        """The next character, or an empty text at the end."""
        while not self.text and not self.ended:
            yield
        return self.text[:1]

    def skip_space(self, others: str = "") -> Steps[str]:
        """Take white space and ``others``; the next character that is neither, or an empty text at the end."""
        while True:
            n = len(self.text) - len(self.text.lstrip(" \t\r\n" + others))
            self.take(n)
            if self.text or self.ended:
                return self.text[:1]
            yield

    def exact(self, literal: str) -> Steps[bool]:
        """Take ``literal`` if it comes next."""
        while len(self.text) < len(literal) and literal.startswith(self.text) and not self.ended:
            yield
        found = self.text.startswith(literal)
        if found:
            self.take(len(literal))
        return found

    def literal(self, literal: str) -> Steps[bool]:
        """Take ``literal`` if it comes next, with white space as it likes; nothing but white space if not."""
        for word in literal.split():
            yield from self.skip_space()
            if not (yield from self.exact(word)):
                return False
        return True

    def until(self, stops: Sequence[str], emit: Emit) -> Steps[str | None]:
        """Emit text up to the first of ``stops``, the longest of those that begin there, and take it; None at the end.

        Nothing is emitted that may still be the beginning of a stop.
        """
        while True:
            found = [(at, -len(stop), stop) for stop in stops if (at := self.text.find(stop)) >= 0]
            held = len(self.text) if self.ended else self._held(stops)
            if found and (best := min(found))[0] < held:
                emit(self.take(best[0]))
                self.take(len(best[2]))
                return best[2]
            emit(self.take(held))
            if self.ended:
                return None
            yield

    def _held(self, stops: Sequence[str]) -> int:
        """Where the text's end begins that may become a stop with what follows."""
        longest = max(map(len, stops), default=1) - 1
        for at in range(max(0, len(self.text) - longest), len(self.text)):
            tail = self.text[at:]
            if any(len(stop) > len(tail) and stop.startswith(tail) for stop in stops):
                return at
        return len(self.text)

    def json_value(self, emit: Emit) -> Steps[bool]:
        """Emit one JSON value as it comes, without checking more than its brackets and quotes; False where none is."""
        first = yield from self.skip_space()
        if not first or first in ",:]}":
            return False
        if first not in '{["':
            yield from self._scalar(emit)
            return True
        depth, quoted, escaped = 0, False, False
        while True:
            for i, character in enumerate(self.text):
                if escaped:
                    escaped = False
                elif quoted:
                    escaped, quoted = character == "\\", character != '"'
                elif character == '"':
                    quoted = True
                elif character in "{[":
                    depth += 1
                elif character in "}]":
                    depth -= 1
                if depth == 0 and not quoted and not escaped:
                    emit(self.take(i + 1))
                    return True
            emit(self.take(len(self.text)))
            if self.ended:
                return False
            yield

    def _scalar(self, emit: Emit) -> Steps[None]:
        while True:
            for i, character in enumerate(self.text):
                if character in ',:]}[{"<' or character.isspace():
                    emit(self.take(i))
                    return
            emit(self.take(len(self.text)))
            if self.ended:
                return
            yield
