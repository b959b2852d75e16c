"""What a step costs by its number of rows, as measured while texts are written."""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np

SAMPLES = 7  # steps of a number of rows that are remembered
TRUSTED = 3  # steps that are no accident
FORGOTTEN = 256  # steps after which a number of rows that did not occur again is as if it had not been measured
GUESSED = ((1, 2, 3, 4, 5, 8, 16, 32), (1.0, 1.13, 1.2, 1.39, 1.98, 2.8, 5.3, 8.4))
"""What is held to be so before it was measured: the cost of a step of 0.6B parameters in Q4_0, relative to one row."""


class StepCost:
    """Seconds of a step by its rows: the median of those measured lately.

    A number of rows that was measured too seldom is held to cost no more than the nearest that was not lets expect, so
    that one step that was disturbed does not keep others from being tried.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._trusted: dict[int, int] = {}  # rows, and when they occurred last
        self._n = 0

    def measure(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self._n += 1
        samples = self._seconds.setdefault(rows, deque(maxlen=SAMPLES))
        samples.append(seconds)
        self._medians[rows] = median(samples)
        if len(samples) >= TRUSTED:
            self._trusted[rows] = self._n
        if self._n % FORGOTTEN == 0:
            for old in [old for old, last in self._trusted.items() if last <= self._n - FORGOTTEN]:
                del self._trusted[old], self._seconds[old], self._medians[old]

    def of(self, rows: int) -> float | None:
        """Seconds of a step of so many rows; None before anything was measured often enough."""
        if rows in self._trusted:
            return self._medians[rows]
        if not self._trusted:
            return None
        nearest = min(self._trusted, key=lambda other: abs(other - rows))
        expected = self._medians[nearest] * _guessed(rows) / _guessed(nearest)
        return min(expected, self._medians.get(rows, expected))


def _guessed(rows: int) -> float:
    if rows > GUESSED[0][-1]:
        return GUESSED[1][-1] * rows / GUESSED[0][-1]
    return float(np.interp(rows, *GUESSED))
