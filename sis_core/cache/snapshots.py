"""A table for states that sum up a whole text in bytes of a fixed number: recurrences and convolutions."""

from __future__ import annotations

import numpy as np

from sis_core.cache.table import Held, Reservation, Table
from sis_core.step import Group, Plan


class SnapshotTable(Table):
    """Each sequence holds one page. A step reads it and writes another, so that what was there before can be kept.

    A group's pages are those two, ``[before, after]``; before is −1 where a text begins. Pages are never written twice:
    a mark keeps one, and forks share one, without a copy. A text can go back only to its marks.
    """

    @property
    def n_free(self) -> int:
        """Sequences that there is room for; a text's length takes none."""
        return self.pool.n_free

    def first(self, sequence: int) -> int:
        return 0

    def replace(self, sequence: int, n: int, first: int = 0) -> list[int]:
        if not n:
            self.drop(sequence)
            return []
        page = self._take([])
        self.drop(sequence)
        self._sequences[sequence] = Held.of((page,), n)
        return [page]

    def can_lack(self, length: int, first: int) -> bool:
        return first == 0

    def extend(self, step: Reservation) -> Plan:
        row = 0
        slots: list[int] = []
        groups: list[Group] = []
        for sequence, start, n in step.batch.runs:
            before = self._before(step, sequence, start)
            after = self._take(step.taken)
            step.replaced += before.pages
            self._sequences[sequence] = Held.of((after,), start + n)
            pages = np.array((*(before.pages or (-1,)), after), np.int32)
            slots += [after] * n
            groups.append(Group(row, n, pages, start + n))
            row += n
        return Plan(step.places, step.batch.ids, slots, tuple(groups), 1)

    def _reach(self, held: Held, n: int) -> int:
        return held.length if held.length <= n else 0

    def _cut(self, held: Held, n: int) -> Held:
        return held

    def _mark_of(self, held: Held) -> Held | None:
        return held
