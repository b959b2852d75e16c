"""Page tables: which pages of a layer's storage hold which sequence. Shared prefixes are counted, and copied on write.

The tables know nothing of what a page holds. They are kept apart from the storage so that every backend's layout gets
forking, truncation and rollback from the same code. The idea is that of PagedAttention (Kwon et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from sis_core.arrays import I32
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.step import Batch, Group, Plan

PAGE_SIZE = 32


def pages_for(n_tokens: int) -> int:
    """Pages of `PAGE_SIZE` that hold ``n_tokens``."""
    return -(-n_tokens // PAGE_SIZE)


class _Sequence(NamedTuple):
    """A sequence's pages, twice: as they are counted, and as a plan wants them. Replaced, never changed."""

    pages: tuple[int, ...]
    array: I32
    length: int

    @classmethod
    def of(cls, pages: Sequence[int], length: int) -> _Sequence:
        return cls(tuple(pages), np.array(pages, np.int32), length)


NOTHING = _Sequence.of((), 0)


class Reservation:
    """Room for a batch while it runs: entering gives the plan; left by an exception, the table is as it was."""

    def __init__(self, table: PageTable, batch: Batch, copy_page: Callable[[int, int], None]) -> None:
        self.table, self.batch, self.copy_page = table, batch, copy_page
        self.before: dict[int, _Sequence] = {}
        self.taken: list[int] = []
        self.replaced: list[int] = []  # pages that others share: they live until the step is done

    def __enter__(self) -> Plan:
        try:
            return self.table._extend(self)
        except BaseException:
            self.table._undo(self)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.table._give_back(self.replaced)
        else:
            self.table._undo(self)


def _nothing_to_copy(source: int, target: int) -> None:
    """What a table without storage does for a page that was shared."""


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

    @property
    def n_free(self) -> int:
        """Tokens that the pages that are free hold."""
        return len(self._free) * self.page_size

    def length(self, sequence: int) -> int:
        return self._sequences.get(sequence, NOTHING).length

    def pages(self, sequence: int) -> Sequence[int]:
        return self._sequences.get(sequence, NOTHING).pages

    def reserve(self, batch: Batch, copy_page: Callable[[int, int], None] = _nothing_to_copy) -> Reservation:
        """Make room for a batch while it runs; after an exception the table is as it was.

        A page that sequences share is replaced for each of them that would write to it, by ``copy_page(page, fresh)``,
        and lives until the step is done, so that nothing that was there before is lost when the step fails.

        Raises:
            ContextError: the positions do not continue their sequences.
            MemoryLimitError: there are not enough pages.
        """
        return Reservation(self, batch, copy_page)

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens; ContextError when the sequence is shorter."""
        length = self.length(sequence)
        if not 0 <= n <= length:
            raise ContextError(f"cannot keep {n} tokens of {length}", where=f"sequence {sequence}")
        if n == 0:
            return self.drop(sequence)
        pages, keep = self.pages(sequence), -(-n // self.page_size)
        self._sequences[sequence] = _Sequence.of(pages[:keep], n)
        self._give_back(pages[keep:])
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
            self._sequences[target] = _Sequence.of(shared, n)
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
        pages: list[int] = []
        for _ in range(needed):
            self._take(pages)
        self._sequences[sequence] = _Sequence.of(pages, n)
        return pages

    def _extend(self, step: Reservation) -> Plan:
        size, slots, groups, row = self.page_size, [], [], 0
        for sequence, start, n in step.batch.runs:
            before = step.before[sequence] = self._sequences.get(sequence, NOTHING)
            if start != before.length:
                raise ContextError(
                    f"a run from {start} on does not continue a sequence of {before.length} tokens",
                    where=f"sequence {sequence}",
                    fix="truncate the sequence first, or give what comes next in it",
                )
            stop = start + n
            now = self._sequences[sequence] = self._longer(before, stop, step)
            pages = now.pages
            slots += [pages[at // size] * size + at % size for at in range(start, stop)]
            groups.append(Group(np.arange(row, row + n, dtype=np.int32), now.array, stop))
            row += n
        return Plan(step.batch.positions, np.array(slots, np.int32), tuple(groups), size)

    def _longer(self, old: _Sequence, length: int, step: Reservation) -> _Sequence:
        """A sequence with room for ``length`` tokens, in pages of its own from its end on."""
        pages, last = old.pages, old.length // self.page_size
        shared = last < len(pages) and self._uses[pages[last]] > 1
        if not shared and len(pages) * self.page_size >= length:  # the usual case: only the length changes
            return _Sequence(pages, old.array, length)
        if shared:
            step.replaced.append(pages[last])
            pages = (*pages[:last], self._take(step.taken))
            step.copy_page(step.replaced[-1], pages[last])
        while len(pages) * self.page_size < length:
            pages = (*pages, self._take(step.taken))
        return _Sequence.of(pages, length)

    def _undo(self, step: Reservation) -> None:
        for sequence, old in step.before.items():
            if old is NOTHING:
                self._sequences.pop(sequence, None)
            else:
                self._sequences[sequence] = old
        self._give_back(step.taken)

    def _take(self, taken: list[int]) -> int:
        """A fresh page, added to those taken."""
        if not self._free:
            raise self._full(1)
        page = self._free.pop()
        taken.append(page)
        self._uses[page] = 1
        return page

    def _give_back(self, pages: Sequence[int]) -> None:
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
