"""Page tables: which pages of a layer's storage hold which tokens. Shared prefixes are counted, and copied on write.

The idea is that of PagedAttention (Kwon et al. 2023). Layers that look back no further than a window have a table of
their own, which gives back the pages that lie behind the window.
"""

from __future__ import annotations

from collections.abc import Iterable

from sis_core.arrays import F32
from sis_core.cache.table import Gap, Held, Reservation, Table
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.step import Group, Plan

PAGE_SIZE = 32
BEHIND = 1  # pages that are kept behind a window, so that a text can go back by a few tokens


def pages_for(n_tokens: int) -> int:
    """Pages of `PAGE_SIZE` that hold ``n_tokens``."""
    return -(-n_tokens // PAGE_SIZE)


class PageTable(Table):
    """Sequences over ``n_pages`` pages of ``page_size`` tokens; with ``window``, of which the last so many are seen."""

    def __init__(self, n_pages: int, page_size: int = PAGE_SIZE, window: int | None = None) -> None:
        super().__init__(n_pages)
        self.page_size, self.window = page_size, window

    @property
    def n_pages(self) -> int:
        return self.pool.n_pages

    @property
    def n_free(self) -> int:
        """Tokens that the pages that are free hold."""
        return self.pool.n_free * self.page_size

    def first(self, sequence: int) -> int:
        held = self._sequences.get(sequence)
        return held.first if held else 0

    def replace(self, sequence: int, n: int, first: int = 0) -> list[int]:
        needed = -(-n // self.page_size) - first
        own = sum(self.pool.uses[page] == 1 for page in self.pages(sequence) if page >= 0)
        if needed > self.pool.n_free + own:
            raise self._full(None)
        self.drop(sequence)
        pages: list[int] = []
        for _ in range(needed):
            self._take(pages)
        if n:
            self._sequences[sequence] = Held.of((-1,) * first + tuple(pages), n, first)
        return pages

    def evict(self, sequence: int, pages: Iterable[int]) -> None:
        """Give back pages by their numbers in the text, all of which it fills; see `Cache.evict`."""
        held = self._sequences.get(sequence)
        wanted = sorted(set(pages))
        if wanted and (held is None or wanted[0] < 0 or (wanted[-1] + 1) * self.page_size > held.length):
            raise ContextError(
                f"there is no full page {wanted[0] if wanted[0] < 0 else wanted[-1]} to give back",
                where=f"sequence {sequence}",
            )
        if held is None or not (wanted := [page for page in wanted if held.pages[page] >= 0]):
            return
        left = list(held.pages)
        for page in wanted:
            left[page] = -1
        whole, n_before = (held.gap.whole, held.gap.n_pages) if held.gap else (held.length, 0)
        gap = Gap(min(whole, wanted[0] * self.page_size), held.length, n_before + len(wanted))
        self._sequences[sequence] = Held.of(left, held.length, held.first, gap)
        self.pool.give_back(held.pages[page] for page in wanted)

    def can_lack(self, length: int, first: int) -> bool:
        return 0 <= first <= self._seen(length)

    def extend(self, step: Reservation) -> Plan:
        size, row = self.page_size, 0
        slots: list[int] = []
        groups: list[Group] = []
        for sequence, start, n_rows in step.batch.runs:
            before = self._before(step, sequence, start)
            n = n_rows + step.n_more
            stop = start + n
            now = self._sequences[sequence] = self._longer(before, stop, step)
            pages = now.pages
            if n == 1:
                slots.append(pages[start // size] * size + start % size)
            else:
                slots += [pages[at // size] * size + at % size for at in range(start, stop)]
            groups.append(Group(row, n, now.array, stop))
            row += n
        watch: list[F32] | None = [] if step.batch.watch and self.window is None else None
        return Plan(step.places, step.batch.ids, slots, tuple(groups), size, watch)

    def _longer(self, old: Held, length: int, step: Reservation) -> Held:
        """A sequence with room for ``length`` tokens, in pages of its own from its end on."""
        pages, last = old.pages, old.length // self.page_size
        shared = last < len(pages) and self.pool.uses[pages[last]] > 1 and self._is_shared(pages[last])
        if not shared and len(pages) * self.page_size >= length:  # the usual case: only the length changes
            return Held(pages, old.array, length, old.first, old.gap)
        if shared:
            step.replaced.append(pages[last])
            pages = (*pages[:last], self._take(step.taken))
            step.copy_page(step.replaced[-1], pages[last])
        while len(pages) * self.page_size < length:
            pages = (*pages, self._take(step.taken))
        return Held.of(pages, length, old.first, old.gap)

    def finish(self, step: Reservation) -> None:
        if step.replaced:
            super().finish(step)
        if self.window is not None:
            for sequence in step.before:
                held = self._sequences[sequence]
                first = self._seen(held.length) - BEHIND
                if first > held.first:
                    left = (-1,) * first + held.pages[first:]
                    self._sequences[sequence] = Held.of(left, held.length, first, held.gap)
                    self.pool.give_back(held.pages[held.first : first])

    def _seen(self, length: int) -> int:
        """The first page that the token at place ``length`` sees anything of."""
        return 0 if self.window is None else max(0, length - self.window + 1) // self.page_size

    def _reach(self, held: Held, n: int) -> int:
        n = min(n, held.length)
        if held.gap and n < held.gap.since:
            n = min(n, held.gap.whole)
        return n if self._seen(n) >= held.first else 0

    def _cut(self, held: Held, n: int) -> Held:
        gap = held.gap if held.gap and n >= held.gap.since else None
        return Held.of(held.pages[: -(-n // self.page_size)], n, held.first, gap)

    def _mark_of(self, held: Held) -> Held | None:
        if self.window is None:
            return None
        first = max(held.first, self._seen(held.length))
        return Held.of((-1,) * first + held.pages[first:], held.length, first, held.gap)

    def _full(self, error: object) -> MemoryLimitError:
        return MemoryLimitError(
            f"the cache of {self.n_pages * self.page_size} tokens is full: more pages of {self.page_size} are needed, "
            f"{self.pool.n_free} are free",
            where="cache",
            fix="drop a sequence or make the cache larger (--ctx)",
        )
