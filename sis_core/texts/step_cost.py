"""What a step costs by its number of rows, as measured while texts are written."""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np

SAMPLES = 7  # steps of a number of rows that are remembered
GUESSED = ((1, 2, 3, 4, 5, 8, 16, 32), (1.0, 1.13, 1.2, 1.39, 1.98, 2.8, 5.3, 8.4))
"""What is held to be so before it was measured: the cost of a step of 0.6B parameters in Q4_0, relative to one row."""


class StepCost:
    """Seconds of a step by its rows: of those that were measured lately the median, else by the nearest of them."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}

    def measure(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        samples = self._seconds.setdefault(rows, deque(maxlen=SAMPLES))
        samples.append(seconds)
        self._medians[rows] = median(samples)

    def of(self, rows: int) -> float | None:
        """Seconds of a step of so many rows; None before anything was measured."""
        if (known := self._medians.get(rows)) is not None:
            return known
        if not self._medians:
            return None
        nearest = min(self._medians, key=lambda other: abs(other - rows))
        return self._medians[nearest] * _guessed(rows) / _guessed(nearest)


def _guessed(rows: int) -> float:
    if rows > GUESSED[0][-1]:
        return GUESSED[1][-1] * rows / GUESSED[0][-1]
    return float(np.interp(rows, *GUESSED))
