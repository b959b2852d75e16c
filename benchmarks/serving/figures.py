"""From what clients saw to a line of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from serving.traffic import Seen

GOOD = 0.95  # of the requests


class Search:
    """The highest rate that is kept: up from a start until one is not, or down until one is, then between the two.

    Args:
        rise: from one rate to the next.
        halvings: of the interval between the highest that was kept and the lowest that was not.
    """

    def __init__(self, start: float, rise: float, halvings: int) -> None:
        self._start, self._rise, self._left = start, rise, halvings
        self._kept, self._missed = 0.0, math.inf
        self.rate: float | None = start

    @property
    def best(self) -> float:
        """0 where none was kept."""
        return self._kept

    def tell(self, kept: bool) -> None:
        """How it went at ``rate``, which then is the next to try, or None."""
        assert self.rate is not None
        if kept:
            self._kept = max(self._kept, self.rate)
        else:
            self._missed = min(self._missed, self.rate)
        if self._missed == math.inf:
            self.rate = self._kept * self._rise
        elif self._kept == 0.0:
            self.rate = self._missed / 2 if self._missed > self._start / 16 else None
        elif self._left:
            self._left -= 1
            self.rate = math.sqrt(self._kept * self._missed)
        else:
            self.rate = None


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; infinity where there is none."""
    if not values:
        return math.inf
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figures(seen: Sequence[Seen], rate: float) -> dict[str, Any]:
    """Of one rate. Requests without a first token count as infinitely late."""
    firsts = [math.inf if one.first is None else one.first for one in seen]
    gaps = [gap for one in seen for gap in one.gaps]
    good = sum(one.good for one in seen) / len(seen) if seen else 0.0
    return {
        "rate": rate,
        "requests": len(seen),
        "good": good,
        "kept": good >= GOOD,
        "first_p50": quantile(firsts, 0.5),
        "first_p99": quantile(firsts, 0.99),
        "gap_p50": quantile(gaps, 0.5),
        "gap_p99": quantile(gaps, 0.99),
        "errors": sorted({one.error for one in seen if one.error})[:3],
    }


def line(name: str, found: dict[str, Any]) -> str:
    """For people."""
    shown = (
        f"{name:24} {found['rate']:6.2f}/s {found['requests']:5} requests {100 * found['good']:5.1f} % good   "
        f"first {1000 * found['first_p50']:6.0f} ms, p99 {1000 * found['first_p99']:6.0f}   "
        f"gap {1000 * found['gap_p50']:4.0f} ms, p99 {1000 * found['gap_p99']:5.0f}"
    )
    return shown + "".join(f"\n    {error}" for error in found["errors"])
