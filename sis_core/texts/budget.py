"""How the rows of a step are shared: texts that are decoding come first, prompts take the rest."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

from sis_core.cache.pages import PAGE_SIZE
from sis_core.errors import SisError


class Budget:
    """At most ``rows`` rows a step.

    Args:
        rows: of a step, more than a page of the cache.
        stall: seconds that texts which are decoding may wait for prompts that are read in the same step; None for as
            long as it takes.
    """

    def __init__(self, rows: int, stall: float | None = None) -> None:
        if stall is not None and (not isinstance(stall, Real) or isinstance(stall, bool) or not stall >= 0):
            raise SisError(f"is {stall!r:.60}, but must be 0 or more seconds", where="stall")
        self.rows, self.stall = rows, stall
        self._rate: float | None = None  # rows a second, of steps that read prompts

    @property
    def most_texts(self) -> int:
        """Texts that may run at once, so that all can decode in a step that still has room for a page of a prompt."""
        return max(1, self.rows - PAGE_SIZE)

    def share(self, pending: Mapping[int, int]) -> dict[int, int]:
        """Rows of the next step by text, of those that each has to feed; ``pending`` has the most urgent first.

        A text with one row is decoding. Of the others the oldest, which has the smallest number, gets at least a page,
        then each gets what is left in order, so that nobody starves.
        """
        shares = {text: 1 for text, n in pending.items() if n == 1}
        prompts = {text: n for text, n in pending.items() if n > 1}
        if not prompts:
            return shares
        room = self._for_prompts(len(shares))
        oldest = min(prompts)
        shares[oldest] = min(prompts[oldest], PAGE_SIZE)
        room -= shares[oldest]
        for text, n in prompts.items():
            before = shares.get(text, 0)
            if more := min(n - before, max(room, 0)):
                shares[text] = before + more
                room -= more
        return shares

    def measure(self, shares: Mapping[int, int], seconds: float) -> None:
        """Learn from a step that took so long how many rows a second are read."""
        n = sum(shares.values())
        if n == len(shares) or seconds <= 0:  # nothing but decoding
            return
        rate = n / seconds
        self._rate = rate if self._rate is None else (self._rate + rate) / 2

    def _for_prompts(self, n_decoding: int) -> int:
        room = self.rows - n_decoding
        if self.stall is None or not n_decoding:
            return room
        affordable = 0 if self._rate is None else int(self._rate * self.stall) - n_decoding
        return min(room, max(affordable, PAGE_SIZE))
