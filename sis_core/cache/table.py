"""What every kind of table knows: which pages a sequence holds, and the ways back that it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from sis_core.arrays import I32
from sis_core.cache.pool import Pool
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.step import Batch, Ints, Plan

MARKS = 2  # ways back that a sequence keeps


class Gap(NamedTuple):
    """What evictions left of a text.

    Attributes:
        whole: tokens before the first page that is gone.
        since: the text's length at the last eviction: what came before it had seen more, and cannot be gone back to.
        n_pages: how many pages are gone.
    """

    whole: int
    since: int
    n_pages: int


class Held(NamedTuple):
    """The pages of the first ``length`` tokens of a text. Replaced, never changed.

    Attributes:
        pages: as they are counted; −1 for those that were given back.
        array: the same, as a plan wants them.
        first: the first that lies not behind a window.
        gap: what was evicted; None for nothing.
    """

    pages: tuple[int, ...]
    array: I32
    length: int
    first: int = 0
    gap: Gap | None = None

    @classmethod
    def of(cls, pages: Sequence[int], length: int, first: int = 0, gap: Gap | None = None) -> Held:
        return cls(tuple(pages), np.array(pages, np.int32), length, first, gap)


NOTHING = Held.of((), 0)


class Reservation:
    """Room for a batch while it runs: entering gives the plan; left by an exception, the table is as it was.

    Attributes:
        before: what the sequences of the step held.
        taken: pages that they hold beside that.
        replaced: pages that they hold no more: they live until the step is done.
        n_more: rows that each sequence gets room for beside those of the batch, for tokens that nobody knows yet.
    """

    def __init__(
        self, table: Table, batch: Batch, copy_page: Callable[[int, int], None], places: Ints, n_more: int = 0
    ) -> None:
        self.table, self.batch, self.copy_page, self.places = table, batch, copy_page, places
        self.n_more = n_more
        self.before: dict[int, Held] = {}
        self.taken: list[int] = []
        self.replaced: list[int] = []

    def __enter__(self) -> Plan:
        try:
            return self.table.extend(self)
        except BaseException:
            self.table.undo(self)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.table.finish(self)
        else:
            self.table.undo(self)


def nothing_to_copy(source: int, target: int) -> None:
    """What a table without storage does for a page that was shared."""


class Table(ABC):
    """Sequences over the pages of a pool. Tables know nothing of what a page holds.

    They are kept apart from the storage so that every backend's layout gets forking, going back and marks from the same
    code.
    """

    def __init__(self, n_pages: int) -> None:
        self.pool = Pool(n_pages)
        self._sequences: dict[int, Held] = {}
        self._marks: list[tuple[int, Held]] = []  # in the order in which they were made

    @property
    def n_used(self) -> int:
        """Pages in use; a shared page counts once."""
        return self.pool.n_used

    def length(self, sequence: int) -> int:
        return self._sequences.get(sequence, NOTHING).length

    def pages(self, sequence: int) -> Sequence[int]:
        """Numbers of the sequence's pages, in order; −1 for one that was given back."""
        return self._sequences.get(sequence, NOTHING).pages

    def reserve(self, batch: Batch, copy_page: Callable[[int, int], None] = nothing_to_copy) -> Reservation:
        """Make room for a batch while it runs; after an exception the table is as it was.

        Nothing that was there before is lost when the step fails: a page that others hold too is replaced for each
        sequence that would write to it, by ``copy_page(page, fresh)``, and lives until the step is done.

        Raises:
            ContextError: a run does not continue its sequence.
            MemoryLimitError: there are not enough pages.
        """
        return Reservation(self, batch, copy_page, batch.places)

    def reach(self, sequence: int, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that the sequence can go back to."""
        return max((self._reach(held, n) for held in self._views(sequence)), default=0)

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens; ContextError when they cannot be reached."""
        if n == self.length(sequence):
            return
        found = self._beginning(sequence, n, "keep")
        self.pool.share(found.pages)
        self.pool.give_back(self._sequences[sequence].pages)
        self._set(sequence, found)
        self._forget(sequence, n)

    def fork(self, source: int, target: int, n: int) -> None:
        """Let ``target`` begin with the first ``n`` tokens of ``source``, sharing pages; it gets its marks too."""
        if source == target:
            return self.truncate(source, n)
        found = self._beginning(source, n, "share")
        self.pool.share(found.pages)
        self.drop(target)
        self._set(target, found)
        for held in [held for owner, held in self._marks if owner == source and held.length <= n]:
            self._add_mark(target, held)
        return None

    def mark(self, sequence: int) -> None:
        """Keep a way back to what the sequence is now: until it is cut to less, or dropped, or newer ones take over."""
        held = self._sequences.get(sequence)
        marks = [old for owner, old in self._marks if owner == sequence]
        if held is None or (kept := self._mark_of(held)) is None or any(old.length == held.length for old in marks):
            return
        if len(marks) >= MARKS:
            self._forget(sequence, -1, oldest=True)
        self._add_mark(sequence, kept)

    def whole(self, sequence: int) -> int:
        """Tokens before the first page that was evicted; all, where none was."""
        held = self._sequences.get(sequence, NOTHING)
        return held.gap.whole if held.gap else held.length

    def n_evicted(self, sequence: int) -> int:
        """Pages that were evicted."""
        held = self._sequences.get(sequence, NOTHING)
        return held.gap.n_pages if held.gap else 0

    def drop(self, sequence: int) -> None:
        found = self._sequences.pop(sequence, None)
        if found:
            self.pool.give_back(found.pages)
            self._forget(sequence, 0)

    def check(self, sequence: int, n: int, what: str) -> None:
        """ContextError unless the sequence can go back to ``n`` tokens; ``what`` is what it cannot do with them."""
        if n != self.length(sequence):
            self._beginning(sequence, n, what)

    def _beginning(self, sequence: int, n: int, what: str) -> Held:
        length = self.length(sequence)
        if not 0 <= n <= length:
            raise ContextError(f"cannot {what} {n} tokens of {length}", where=f"sequence {sequence}")
        if n == 0:
            return NOTHING
        for held in self._views(sequence):
            if self._reach(held, n) == n:
                return self._cut(held, n)
        raise ContextError(
            f"cannot {what} {n} tokens of {length}: what the next one needs is gone",
            where=f"sequence {sequence}",
            fix=f"go back to {self.reach(sequence, n)} tokens, and feed the rest again",
        )

    def _views(self, sequence: int) -> Iterator[Held]:
        """What a sequence holds now, and what its marks keep."""
        if held := self._sequences.get(sequence):
            yield held
        if self._marks:
            yield from (held for owner, held in self._marks if owner == sequence)

    def _set(self, sequence: int, held: Held) -> None:
        if held is NOTHING:
            self._sequences.pop(sequence, None)
        else:
            self._sequences[sequence] = held

    def _before(self, step: Reservation, sequence: int, start: int) -> Held:
        """What a sequence held that goes on at ``start``."""
        before = step.before[sequence] = self._sequences.get(sequence, NOTHING)
        if start != before.length:
            raise ContextError(
                f"a run from {start} on does not continue a sequence of {before.length} tokens",
                where=f"sequence {sequence}",
                fix="truncate the sequence first, or give what comes next in it",
            )
        return before

    def undo(self, step: Reservation) -> None:
        """Be as before a step that failed."""
        for sequence, old in step.before.items():
            self._set(sequence, old)
        self.pool.give_back(step.taken)

    def finish(self, step: Reservation) -> None:
        """Give back what a step that is done has left behind."""
        if step.replaced:
            self.pool.give_back(step.replaced)

    def _take(self, taken: list[int]) -> int:
        """A fresh page, added to those taken; marks give way, the oldest first."""
        while not self.pool.n_free and self._marks:
            self._forget_oldest()
        try:
            page = self.pool.take()
        except MemoryLimitError as error:
            raise self._full(error) from None
        taken.append(page)
        return page

    def _is_shared(self, page: int) -> bool:
        """Whether a page has to be copied before it is written to; where a copy has no room, its marks give way."""
        while self.pool.uses[page] > 1 and not self.pool.n_free and self._marks:
            self._forget_oldest()
        return self.pool.uses[page] > 1

    def _forget_oldest(self) -> None:
        self.pool.give_back(self._marks.pop(0)[1].pages)

    def _add_mark(self, sequence: int, held: Held) -> None:
        self.pool.share(held.pages)
        self._marks.append((sequence, held))

    def _forget(self, sequence: int, n: int, *, oldest: bool = False) -> None:
        """Forget a sequence's marks of more than ``n`` tokens, or of those the oldest."""
        kept: list[tuple[int, Held]] = []
        done = False
        for owner, held in self._marks:
            if owner != sequence or held.length <= n or done:
                kept.append((owner, held))
            else:
                self.pool.give_back(held.pages)
                done = oldest
        self._marks = kept

    def _full(self, error: MemoryLimitError) -> MemoryLimitError:
        return error

    @property
    @abstractmethod
    def n_free(self) -> int:
        """Tokens that there is still room for."""

    @abstractmethod
    def replace(self, sequence: int, n: int, first: int = 0) -> list[int]:
        """Drop ``sequence`` and give it fresh pages for ``n`` tokens, but none before page ``first``; see `Held`.

        MemoryLimitError when there are not enough; the sequence is as it was then.
        """

    @abstractmethod
    def can_lack(self, length: int, first: int) -> bool:
        """Whether a text of ``length`` tokens can go on without the pages before ``first``."""

    @abstractmethod
    def first(self, sequence: int) -> int:
        """The first of the sequence's pages that was not given back."""

    @abstractmethod
    def extend(self, step: Reservation) -> Plan:
        """Make the room that a step asks for; `finish` or `undo` follows, the latter also where this raises."""

    @abstractmethod
    def _reach(self, held: Held, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that these pages are enough for; 0 at worst."""

    @abstractmethod
    def _cut(self, held: Held, n: int) -> Held:
        """The pages of the first ``n`` tokens, which can be reached."""

    @abstractmethod
    def _mark_of(self, held: Held) -> Held | None:
        """What a mark keeps; None where everything is kept anyway."""
