"""What a cache says of its sequences and does to them, where its tables know."""

from __future__ import annotations

from collections.abc import Iterable

from sis_core.cache.tables import Tables


class Tabled:
    """A cache over tables, for the part of `Cache` that is theirs; a subclass keeps what the pages hold.

    Attributes:
        tables: set by the subclass.
    """

    tables: Tables

    @property
    def n_free(self) -> int:
        return self.tables.n_free

    def length(self, sequence: int) -> int:
        return self.tables.length(sequence)

    def reach(self, sequence: int, n: int) -> int:
        return self.tables.reach(sequence, n)

    def whole(self, sequence: int) -> int:
        return self.tables.whole(sequence)

    def n_evicted(self, sequence: int) -> int:
        return self.tables.n_evicted(sequence)

    def truncate(self, sequence: int, n: int) -> None:
        self.tables.truncate(sequence, n)

    def fork(self, source: int, target: int, n: int) -> None:
        self.tables.fork(source, target, n)

    def mark(self, sequence: int) -> None:
        self.tables.mark(sequence)

    def evict(self, sequence: int, pages: Iterable[int], windowed: bool = False) -> None:
        self.tables.evict(sequence, list(pages), windowed)

    def drop(self, sequence: int) -> None:
        self.tables.drop(sequence)
