"""Tables of cosines and sines, and of other factors by position, as long as the longest text so far."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from sis_core.arrays import F32, F64
from sis_core.backends.native import abi
from sis_core.backends.native.library import address
from sis_core.block import PositionScale, Rope


class Rotations:
    """Tables of cosine and sine for each kind of rope of a model, as long as the longest text so far.

    A `PositionScale` has a table too: its factors in place of cosines.
    """

    def __init__(self) -> None:
        self._ropes: list[Rope | PositionScale] = []
        self._tables = RotationTables(0, ())

    def index(self, rope: Rope | PositionScale) -> int:
        """The number of a rope's table; ropes that turn alike share one."""
        for i, known in enumerate(self._ropes):
            if _alike(known, rope):
                return i
        self._ropes.append(rope)
        return len(self._ropes) - 1

    def tables(self, length: int) -> RotationTables:
        """Tables for positions below ``length``. A step keeps those it was given: a longer set takes their place."""
        found = self._tables  # one attribute: another thread may replace it at any time
        if length > found.length or found.n != len(self._ropes):
            found = self._tables = RotationTables(max(256, 1 << (length - 1).bit_length()), self._ropes)
        return found


class RotationTables:
    """One table for each rope, cosines and sines of ``length`` positions, and where native code finds them."""

    def __init__(self, length: int, ropes: Sequence[Rope | PositionScale]) -> None:
        self.length, self.n = length, len(ropes)
        self._arrays = [_table(rope, length) for rope in ropes]
        records = (abi.Rotation(address(cos), address(sin)) for cos, sin in self._arrays)
        self._records = (abi.Rotation * max(self.n, 1))(*records)
        self.address = ctypes.addressof(self._records)


def _alike(a: Rope | PositionScale, b: Rope | PositionScale) -> bool:
    if isinstance(a, PositionScale) or isinstance(b, PositionScale):
        return a == b
    return a.magnitude == b.magnitude and np.array_equal(a.frequencies, b.frequencies)


def _table(rope: Rope | PositionScale, length: int) -> tuple[F32, F32]:
    if isinstance(rope, PositionScale):
        factors = rope.factors(np.arange(length, dtype=np.int32)).astype(np.float32)
        return factors, factors
    angle: F64 = np.arange(length, dtype=np.float64)[:, None] * rope.frequencies
    return (
        np.ascontiguousarray(np.cos(angle) * rope.magnitude, np.float32),
        np.ascontiguousarray(np.sin(angle) * rope.magnitude, np.float32),
    )
