"""The tables of one cache: one for each kind of state that its layers keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from sis_core.block import STEP_ROWS, State
from sis_core.cache.pages import PAGE_SIZE, PageTable, pages_for
from sis_core.cache.snapshots import SnapshotTable
from sis_core.cache.table import MARKS, Reservation, Table
from sis_core.errors import ContextError
from sis_core.step import Batch, Plan

CopyPage = Callable[[int, int], None]


def kinds_of(states: Iterable[State | None]) -> tuple[int | None, ...]:
    """The windows of some layers' states, each once and those that keep most first; (None,) for no states."""
    windows = {state.window for state in states if state is not None}
    return tuple(sorted(windows, key=lambda window: float("-inf") if window is None else -window)) or (None,)


def n_pages_of(window: int | None, max_tokens: int) -> int:
    """Pages of a table for ``max_tokens`` tokens over all sequences.

    Short texts lie within any window, so a window makes it no smaller: a page takes memory when it is first written.
    """
    return pages_for(max_tokens) + (2 + MARKS if window == 0 else 0)


def kept_tokens(window: int | None, n_tokens: int) -> int:
    """The most tokens of one text that a table keeps at once; marks and other texts keep more."""
    return n_tokens if window is None else min(n_tokens, window + STEP_ROWS + 2 * PAGE_SIZE)


def text_nbytes(state: State, value_bytes: float, n_tokens: int) -> float:
    """Bytes that one text of ``n_tokens`` takes of a state, where a value takes ``value_bytes``."""
    if state.window == 0:
        return 2 * state.sequence_nbytes
    return kept_tokens(state.window, n_tokens) * state.token_nbytes(value_bytes)


def state_nbytes(state: State, page_nbytes: int, n_tokens: int) -> int:
    """The same in pages of so many bytes: what a layer takes of a cache that one text fills."""
    return page_nbytes * (2 if state.window == 0 else pages_for(kept_tokens(state.window, n_tokens)))


class Tables:
    """Every sequence has the same length in all of them: the shortest counts where an interrupt came between two."""

    def __init__(self, kinds: Sequence[int | None], max_tokens: int) -> None:
        self.all: list[Table] = [
            SnapshotTable(n) if kind == 0 else PageTable(n, window=kind)
            for kind in kinds
            for n in [n_pages_of(kind, max_tokens)]
        ]

    @property
    def n_free(self) -> int:
        """Tokens that there is still room for, in whole pages of the table that keeps most."""
        widest = self.all[0]
        return widest.n_free * PAGE_SIZE if isinstance(widest, SnapshotTable) else widest.n_free

    def length(self, sequence: int) -> int:
        length = self.all[0].length(sequence)
        for table in self.all[1:]:
            length = min(length, table.length(sequence))
        return length

    def reserve(self, batch: Batch, copy_page: Sequence[CopyPage], n_more: int = 0) -> Reservations:
        """`Table.reserve` in each, with each table's ``copy_page``, and room for ``n_more`` rows after a single one."""
        if len(self.all) > 1:
            self._mend(batch)
        return Reservations(self.all, batch, copy_page, n_more)

    def _mend(self, batch: Batch) -> None:
        """Cut sequences of a step that are longer in some tables to what all of them hold."""
        for sequence, start, _ in batch.runs:
            lengths = {table.length(sequence) for table in self.all}
            if len(lengths) > 1 and min(lengths) == start:
                kept = self.reach(sequence, start)
                for table in self.all:
                    table.truncate(sequence, kept)

    def reach(self, sequence: int, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that the sequence can go back to in each."""
        while (least := min(table.reach(sequence, n) for table in self.all)) < n:
            n = least
        return n

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens; ContextError when they cannot be reached."""
        for table in self.all:
            table.check(sequence, n, "keep")
        for table in self.all:
            table.truncate(sequence, n)

    def fork(self, source: int, target: int, n: int) -> None:
        """Let ``target`` begin with the first ``n`` tokens of ``source``; ContextError when they cannot be reached."""
        for table in self.all:
            table.check(source, n, "share")
        for table in self.all:
            table.fork(source, target, n)

    def mark(self, sequence: int) -> None:
        for table in self.all:
            table.mark(sequence)

    def can_begin(self, length: object, first: object) -> bool:
        """Whether a saved text may have so many tokens, and lack the pages before ``first`` of each table."""
        return (
            isinstance(length, int)
            and length >= 0
            and isinstance(first, list)
            and len(first) == len(self.all)
            and all(isinstance(page, int) for page in first)
            and all(table.can_lack(length, page) for table, page in zip(self.all, first, strict=True))
        )

    def evict(self, sequence: int, pages: Sequence[int], windowed: bool = False) -> None:
        """Give back pages of a sequence in the table that keeps all of the past, and ``windowed`` in the others too."""
        for table in self.all:
            if isinstance(table, PageTable) and (windowed or table.window is None):
                table.evict(sequence, pages)

    def whole(self, sequence: int) -> int:
        """Tokens of a sequence before the first page that was evicted."""
        return min([table.whole(sequence) for table in self.all])

    def n_evicted(self, sequence: int) -> int:
        """Tokens in the pages of a sequence that were evicted, where most were."""
        return max(table.n_evicted(sequence) for table in self.all) * PAGE_SIZE

    def check_whole(self, sequence: int) -> None:
        """ContextError where something was evicted: what is left cannot be saved."""
        if n := self.n_evicted(sequence):
            raise ContextError(
                f"{n} of its tokens were evicted: what is left cannot be saved", where=f"sequence {sequence}"
            )

    def drop(self, sequence: int) -> None:
        for table in self.all:
            table.drop(sequence)


class Reservations:
    """Room for a batch in several tables; entering gives a plan for each."""

    def __init__(self, tables: Sequence[Table], batch: Batch, copy_page: Sequence[CopyPage], n_more: int) -> None:
        self.tables, self.batch, self.copy_page, self.n_more = tables, batch, copy_page, n_more
        self.parts: list[Reservation] = []

    def __enter__(self) -> tuple[Plan, ...]:
        places = self.batch.places
        if self.n_more:
            places = [*range(places[0], places[0] + 1 + self.n_more)]
        plans: list[Plan] = []
        try:
            for table in self.tables:
                part = Reservation(table, self.batch, self.copy_page[len(plans)], places, self.n_more)
                self.parts.append(part)
                plans.append(table.extend(part))
        except BaseException:
            for part in self.parts:
                part.table.undo(part)
            raise
        return tuple(plans)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self.parts:
            if kind is None:
                part.table.finish(part)
            else:
                part.table.undo(part)
