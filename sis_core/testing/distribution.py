"""Whether drawn tokens follow a distribution: a G-test (the likelihood ratio form of the chi-square test)."""

from __future__ import annotations

import math
from collections.abc import Sequence

CHANCE = 3.719  # standard deviations that a normal variable exceeds once in ten thousand times
RARE = 5  # expected draws: tokens with fewer are counted together, as the test asks for


def critical(df: int) -> float:
    """What a chi-square variable exceeds once in ten thousand times (Wilson and Hilferty 1931)."""
    return float(df * (1 - 2 / (9 * df) + CHANCE * math.sqrt(2 / (9 * df))) ** 3)


def misfit(counts: Sequence[int], expected: Sequence[float]) -> str | None:
    """Why draws with these ``counts`` do not come from the probabilities ``expected``, or None when they may."""
    n = sum(counts)
    impossible = [i for i, p in enumerate(expected) if p == 0 and counts[i]]
    if impossible:
        return f"token {impossible[0]} was drawn {counts[impossible[0]]} times and must never be"
    rare = [i for i, p in enumerate(expected) if n * p < RARE]
    cells = [(counts[i], n * p) for i, p in enumerate(expected) if i not in rare and p > 0]
    cells.append((sum(counts[i] for i in rare), n * sum(expected[i] for i in rare)))
    cells = [(seen, mean) for seen, mean in cells if mean > 0]
    g = 2 * sum(seen * math.log(seen / mean) for seen, mean in cells if seen)
    limit = critical(len(cells) - 1) if len(cells) > 1 else 1e-6
    if g <= limit:
        return None
    worst = max(range(len(expected)), key=lambda i: (counts[i] - n * expected[i]) ** 2 / max(n * expected[i], 1))
    return (
        f"token {worst} was drawn {counts[worst]} times in {n}, not about {n * expected[worst]:.0f} "
        f"(G = {g:.1f} is above {limit:.1f})"
    )
