"""What a step costs by its number of rows, as measured while texts are written."""

from __future__ import annotations

from collections import deque
from functools import cache
from statistics import median

import numpy as np

SAMPLES = 7  # steps of a number of rows that are remembered
TRUSTED = 3  # steps that are no accident
FORGOTTEN = 256  # steps after which a number of rows that did not occur again is as if it had not been measured
GUESSED = ((1, 2, 3, 4, 5, 8, 12, 16, 32), (1.0, 1.04, 1.08, 1.23, 1.5, 1.6, 1.9, 2.6, 4.5))
"""What is held to be so before it was measured: the cost of a step of 135M parameters in Q4_1, relative to one row."""


class StepCost:
    """Seconds of a step by its rows: the median of those measured lately.

    A number of rows that was measured too seldom is held to cost no more than the nearest that was not lets expect, so
    that one step that was disturbed does not keep others from being tried. To note a step takes half a microsecond;
    what it means is worked out when somebody asks.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._last: dict[int, int] = {}  # rows, and when they occurred last
        self._n = 0
        self._medians: dict[int, float] = {}  # of rows whose samples did not change since
        self._known: dict[int, float | None] = {}  # answers since the last step
        self._trusted: list[int] = []  # rows that they rest on

    def measure(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self._n += 1
        if (samples := self._seconds.get(rows)) is None:
            samples = self._seconds[rows] = deque(maxlen=SAMPLES)
        samples.append(seconds)
        self._last[rows] = self._n
        self._medians.pop(rows, None)
        if self._known:
            self._known = {}

    def of(self, rows: int) -> float | None:
        """Seconds of a step of so many rows; None before anything was measured often enough."""
        if not self._known:
            self._forget()
            self._trusted = [other for other, seconds in self._seconds.items() if len(seconds) >= TRUSTED]
        if rows not in self._known:
            self._known[rows] = self._of(rows)
        return self._known[rows]

    def _of(self, rows: int) -> float | None:
        samples = self._seconds.get(rows, ())
        if len(samples) >= TRUSTED:
            return self._median(rows)
        if not self._trusted:
            return None
        nearest = min(self._trusted, key=lambda other: abs(other - rows))
        expected = self._median(nearest) * _guessed(rows) / _guessed(nearest)
        return min(expected, self._median(rows)) if samples else expected

    def _median(self, rows: int) -> float:
        if (known := self._medians.get(rows)) is None:
            known = self._medians[rows] = median(self._seconds[rows])
        return known

    def _forget(self) -> None:
        for old in [old for old, last in self._last.items() if last <= self._n - FORGOTTEN]:
            del self._last[old], self._seconds[old]
            self._medians.pop(old, None)


@cache
def _guessed(rows: int) -> float:
    if rows > GUESSED[0][-1]:
        return GUESSED[1][-1] * rows / GUESSED[0][-1]
    return float(np.interp(rows, *GUESSED))
