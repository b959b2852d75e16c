"""Page tables against a plain model of them: whatever the order of calls, tokens stay where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sis_core.cache.pages import PageTable
from sis_core.cache.table import MARKS
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.step import Batch, Run

N_PAGES, PAGE = 12, 4
SEQUENCES = st.integers(0, 3)


class StepError(Exception):
    """A step that failed after it wrote."""


class Machine(RuleBasedStateMachine):
    """Real tables move numbers in a store; the model is a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable(N_PAGES, PAGE)
        self.store = np.full(N_PAGES * PAGE, -1)
        self.model: dict[int, list[int]] = {}
        self.longest: dict[int, int] = {}  # what each sequence came to before it was taken back
        self.next = 0

    @rule(sizes=st.dictionaries(SEQUENCES, st.integers(1, 9), min_size=1), fail=st.booleans())
    def extend(self, sizes: dict[int, int], fail: bool) -> None:
        runs = tuple(Run(s, len(self.model.get(s, [])), n) for s, n in sizes.items())
        batch = Batch(np.zeros(sum(sizes.values())), runs, [])
        used = self.table.n_used
        values = np.arange(self.next, self.next + batch.n)
        self.next += batch.n
        try:
            with self.table.reserve(batch, self.copy_page) as plan:
                self.store[plan.slots] = values
                if fail:
                    raise StepError
        except (MemoryLimitError, StepError):
            assert self.table.n_used == used or (self.table.window and self.table.n_used < used)  # marks give way
            return
        left = iter(values.tolist())
        for sequence, n in sizes.items():
            self.model.setdefault(sequence, []).extend(next(left) for _ in range(n))
            self.longest[sequence] = max(self.longest.get(sequence, 0), len(self.model[sequence]))

    def copy_page(self, source: int, target: int) -> None:
        self.store[target * PAGE : (target + 1) * PAGE] = self.store[source * PAGE : (source + 1) * PAGE]

    @rule(sequence=SEQUENCES, share=st.floats(0, 1))
    def truncate(self, sequence: int, share: float) -> None:
        have = self.model.get(sequence, [])
        n = int(len(have) * share)
        self.table.truncate(sequence, n)
        self.model[sequence] = have[:n]

    @rule(source=SEQUENCES, copy=SEQUENCES, share=st.floats(0, 1))
    def fork(self, source: int, copy: int, share: float) -> None:
        used = self.table.n_used
        have = self.model.get(source, [])
        n = int(len(have) * share)
        self.table.fork(source, copy, n)
        self.model[copy] = have[:n]
        assert self.table.n_used <= used

    @rule(sequence=SEQUENCES)
    def drop(self, sequence: int) -> None:
        self.table.drop(sequence)
        self.model.pop(sequence, None)

    @invariant()
    def tokens_are_where_they_belong(self) -> None:
        for sequence, expected in self.model.items():
            pages = np.array(self.table.pages(sequence), int)
            assert self.table.length(sequence) == len(expected)
            slots = (pages[:, None] * PAGE + np.arange(PAGE)).reshape(-1)[: len(expected)]
            assert self.store[slots].tolist() == expected

    @invariant()
    def no_page_is_lost(self) -> None:
        used = {page for sequence in self.model for page in self.table.pages(sequence)}
        assert len(used) == self.table.n_used
        assert self.table.n_free == (N_PAGES - len(used)) * PAGE


WINDOW = 6


class WindowMachine(Machine):
    """Tokens that the next row may see are where they belong; what the table says it can go back to, it can."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable(N_PAGES, PAGE, WINDOW)

    @rule(sequence=SEQUENCES, share=st.floats(0, 1))
    def truncate(self, sequence: int, share: float) -> None:
        self.cut(sequence, self.table.reach(sequence, int(len(self.model.get(sequence, [])) * share)))

    @rule(sequence=SEQUENCES, rows=st.integers(0, PAGE))
    def take_back_a_few(self, sequence: int, rows: int) -> None:
        n = self.longest.get(sequence, 0) - rows
        if 0 <= n <= len(self.model.get(sequence, [])):
            assert self.table.reach(sequence, n) == n
            self.cut(sequence, n)

    def cut(self, sequence: int, n: int) -> None:
        self.table.truncate(sequence, n)
        self.model[sequence] = self.model.get(sequence, [])[:n]

    @rule(source=SEQUENCES, copy=SEQUENCES, share=st.floats(0, 1))
    def fork(self, source: int, copy: int, share: float) -> None:
        n = self.table.reach(source, int(len(self.model.get(source, [])) * share))
        self.table.fork(source, copy, n)
        self.model[copy] = self.model.get(source, [])[:n]
        self.longest[copy] = self.longest.get(source, 0)

    @rule(sequence=SEQUENCES)
    def mark(self, sequence: int) -> None:
        self.table.mark(sequence)
        assert len([owner for owner, _ in self.table._marks if owner == sequence]) <= MARKS

    @invariant()
    def tokens_are_where_they_belong(self) -> None:
        for sequence, expected in self.model.items():
            assert self.table.length(sequence) == len(expected)
            pages = self.table.pages(sequence)
            for at in range(max(0, len(expected) - WINDOW + 1), len(expected)):
                assert self.store[pages[at // PAGE] * PAGE + at % PAGE] == expected[at]
        for sequence, held in self.table._marks:
            kept = self.model[sequence][: held.length]
            for at in range(max(0, held.length - WINDOW + 1), held.length):
                assert self.store[held.pages[at // PAGE] * PAGE + at % PAGE] == kept[at]

    @invariant()
    def no_page_is_lost(self) -> None:
        held = [self.table.pages(sequence) for sequence in self.model] + [mark.pages for _, mark in self.table._marks]
        used = [page for pages in held for page in pages if page >= 0]
        assert len(set(used)) == self.table.n_used
        assert [used.count(page) for page in range(N_PAGES)] == self.table.pool.uses

    @invariant()
    def little_is_kept(self) -> None:
        for sequence in self.model:
            kept = [page for page in self.table.pages(sequence) if page >= 0]
            assert len(kept) <= -(-WINDOW // PAGE) + 2


TestPageTable = Machine.TestCase
TestPageTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWindowTable = WindowMachine.TestCase
TestWindowTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_truncating_past_the_end_is_refused() -> None:
    with pytest.raises(ContextError, match="sequence 5: cannot keep 3 tokens of 0"):
        PageTable(2).truncate(5, 3)


def test_sharing_more_than_there_is_is_refused() -> None:
    with pytest.raises(ContextError, match="sequence 0: cannot share 1 tokens of 0"):
        PageTable(2).fork(0, 1, 1)


def test_a_copy_that_fails_leaves_the_table_as_it_was() -> None:
    table = PageTable(3, PAGE)
    with table.reserve(Batch.of([0] * 6)):
        pass
    table.fork(0, 1, 5)

    def copy_page(source: int, target: int) -> None:
        raise StepError

    for sequence in (0, 1):
        before = table.pages(sequence), table.length(sequence), table.n_used
        with pytest.raises(StepError), table.reserve(Batch.of([0], position=before[1], sequence=sequence), copy_page):
            raise AssertionError("the step ran")
        assert (table.pages(sequence), table.length(sequence), table.n_used) == before
