"""Page tables: which pages of a layer's storage hold which sequence. Shared prefixes are counted, and copied on write.

The tables know nothing of what a page holds. They are kept apart from the storage so that every backend's layout gets
forking, truncation and rollback from the same code. The idea is that of PagedAttention (Kwon et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from attrs import define, field

from sis_core.arrays import I32
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.step import Batch, Group, Plan

PAGE_SIZE = 32


def pages_for(n_tokens: int) -> int:
    """Pages of `PAGE_SIZE` that hold ``n_tokens``."""
    return -(-n_tokens // PAGE_SIZE)


@define
class _Sequence:
    pages: list[int] = field(factory=list)
    length: int = 0


@define
class Reservation:
    """A step's plan, and the page copies (source, target) that must be done before it writes."""

    plan: Plan
    copies: list[tuple[int, int]]


class PageTable:
    """Sequences over ``n_pages`` pages of ``page_size`` tokens."""

    def __init__(self, n_pages: int, page_size: int = PAGE_SIZE) -> None:
        self.page_size = page_size
        self.n_pages = n_pages
        self._free = list(range(n_pages - 1, -1, -1))
        self._uses = [0] * n_pages
        self._sequences: dict[int, _Sequence] = {}

    @property
    def n_used(self) -> int:
        """Pages in use; a shared page counts once."""
        return self.n_pages - len(self._free)

    def length(self, sequence: int) -> int:
        found = self._sequences.get(sequence)
        return found.length if found else 0

    def pages(self, sequence: int) -> list[int]:
        found = self._sequences.get(sequence)
        return list(found.pages) if found else []

    @contextmanager
    def reserve(self, batch: Batch) -> Iterator[Reservation]:
        """Make room for a batch while it runs; after an exception the table is as it was.

        A page that sequences share is replaced for each of them that would write to it, and lives until the step is
        done, so that nothing that was there before is lost when the step fails.

        Raises:
            ContextError: the positions do not continue their sequences.
            MemoryLimitError: there are not enough pages.
        """
        rows_of: dict[int, list[int]] = {}
        for row, sequence in enumerate(batch.sequences.tolist()):
            rows_of.setdefault(sequence, []).append(row)
        before = {s: (self.pages(s), self.length(s)) for s in rows_of}
        copies: list[tuple[int, int]] = []
        try:
            groups = tuple(self._extend(s, rows, batch, copies) for s, rows in rows_of.items())
            slots = np.empty(batch.n, np.int32)
            for group in groups:
                slots[group.rows] = self._slots(group)
            yield Reservation(Plan(batch.positions, slots, groups, self.page_size), copies)
        except BaseException:
            self._undo(before)
            raise
        self._give_back([source for source, _ in copies])

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens; ContextError when the sequence is shorter."""
        length = self.length(sequence)
        if not 0 <= n <= length:
            raise ContextError(f"cannot keep {n} tokens of {length}", where=f"sequence {sequence}")
        if n == 0:
            return self.drop(sequence)
        found = self._sequences[sequence]
        keep = -(-n // self.page_size)
        self._give_back(found.pages[keep:])
        del found.pages[keep:]
        found.length = n
        return None

    def fork(self, source: int, target: int, n: int) -> None:
        """Let ``target`` begin with the first ``n`` tokens of ``source``, sharing its pages."""
        length = self.length(source)
        if not 0 <= n <= length:
            raise ContextError(f"cannot share {n} tokens of {length}", where=f"sequence {source}")
        if source == target:
            return self.truncate(source, n)
        shared = self.pages(source)[: -(-n // self.page_size)]
        for page in shared:
            self._uses[page] += 1
        self.drop(target)
        if n:
            self._sequences[target] = _Sequence(shared, n)
        return None

    def drop(self, sequence: int) -> None:
        found = self._sequences.pop(sequence, None)
        if found:
            self._give_back(found.pages)

    def replace(self, sequence: int, n: int) -> list[int]:
        """Drop ``sequence`` and give it fresh pages for ``n`` tokens, for loading a saved state."""
        needed = -(-n // self.page_size)
        if needed > len(self._free) + sum(self._uses[p] == 1 for p in self.pages(sequence)):
            raise self._full(needed)
        self.drop(sequence)
        pages = [self._take() for _ in range(needed)]
        self._sequences[sequence] = _Sequence(list(pages), n)
        return pages

    def _extend(self, sequence: int, rows: list[int], batch: Batch, copies: list[tuple[int, int]]) -> Group:
        found = self._sequences.setdefault(sequence, _Sequence())
        row_array = np.asarray(rows, np.int32)
        start, stop = found.length, found.length + len(rows)
        positions = batch.positions[row_array].tolist()
        if positions != list(range(start, stop)):
            raise ContextError(
                f"positions {positions[:4]}… do not continue a sequence of {start} tokens",
                where=f"sequence {sequence}",
                fix="truncate the sequence first, or give its rows in order and without a gap",
            )
        last = start // self.page_size
        if last < len(found.pages) and self._uses[found.pages[last]] > 1:
            fresh = self._take()
            copies.append((found.pages[last], fresh))
            found.pages[last] = fresh
        while len(found.pages) * self.page_size < stop:
            found.pages.append(self._take())
        found.length = stop
        return Group(row_array, np.asarray(found.pages, np.int32), stop)

    def _slots(self, group: Group) -> I32 | int:
        """Where the rows of a group are written; one row, the usual case, needs no arrays."""
        if len(group.rows) == 1:
            page, place = divmod(group.length - 1, self.page_size)
            return int(group.pages[page]) * self.page_size + place
        at = np.arange(group.length - len(group.rows), group.length, dtype=np.int32)
        return group.pages[at // self.page_size] * self.page_size + at % self.page_size

    def _undo(self, before: dict[int, tuple[list[int], int]]) -> None:
        for sequence, (pages, length) in before.items():
            found = self._sequences.pop(sequence, _Sequence())
            self._give_back([page for page in found.pages if page not in pages])
            if length:
                self._sequences[sequence] = _Sequence(pages, length)

    def _take(self) -> int:
        if not self._free:
            raise self._full(1)
        page = self._free.pop()
        self._uses[page] = 1
        return page

    def _give_back(self, pages: list[int]) -> None:
        for page in pages:
            self._uses[page] -= 1
            if self._uses[page] == 0:
                self._free.append(page)

    def _full(self, needed: int) -> MemoryLimitError:
        return MemoryLimitError(
            f"the cache of {self.n_pages * self.page_size} tokens is full: {needed} more pages of {self.page_size} "
            f"are needed, {len(self._free)} are free",
            where="cache",
            fix="drop a sequence or make the cache larger (--ctx)",
        )
