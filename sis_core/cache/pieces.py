"""Bytes that come in pieces of any size, read in sizes of our own."""

from __future__ import annotations

from collections.abc import Iterable


class Pieces:
    """Reads from pieces of bytes in order; holds a little more than was asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """``pieces``: also one bytes object, which is a single piece."""
        self._pieces = iter([pieces] if isinstance(pieces, bytes) else pieces)
        self._rest = b""

    def take(self, n: int) -> bytes:
        """The next ``n`` bytes; fewer where there are no more."""
        self._fill(n)
        found, self._rest = self._rest[:n], self._rest[n:]
        return found

    def line(self, most: int) -> bytes:
        """The bytes up to the next newline, without it; ValueError when there is none in the next ``most``."""
        while (at := self._rest.find(b"\n", 0, most)) < 0:
            have = len(self._rest)
            if have >= most or not self._fill(have + 1):
                raise ValueError("no end of a line")
        found, self._rest = self._rest[:at], self._rest[at + 1 :]
        return found

    def _fill(self, n: int) -> bool:
        """Have ``n`` bytes at hand, if there are so many."""
        have, found = len(self._rest), [self._rest]
        while have < n and (piece := next(self._pieces, None)) is not None:
            found.append(piece)
            have += len(piece)
        self._rest = b"".join(found)
        return have >= n
