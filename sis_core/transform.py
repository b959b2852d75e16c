"""What stands between the values that a weight stores and its own: a matrix that activations are multiplied by instead.

A symmetric matrix T, for which ``W = V T`` with the stored values V and the tensor's own W. So ``W x = V (T x)``: a
linear multiplies by V, with transformed activations. That is the linear's affair alone: `QuantFormat.dequantize` gives
W, and a row taken from W, as of an embedding, is its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.discovery.given import check_kind
from sis_core.errors import FormatError


class Transform(ABC):
    """One T. Linears of one input share its transformed rows where their T, and what that reads, are the same objects.

    Attributes:
        size: neighbouring columns that it mixes; blocks of a format hold a whole number of such pieces.
    """

    size: int

    @abstractmethod
    def apply(self, rows: F32, columns: Mapping[str, F32]) -> F32:
        """``rows @ T``, a new array ``(n, n_cols)``, of float32 ``rows`` and the weight's sides of ``(n_cols,)``."""

    def own(self, values: F32) -> F32:
        """What a decoder makes of stored ``values`` ``(n, n_cols)``: by default ``values @ T``."""
        return self.apply(values, {})


@frozen(eq=False)
class Hadamard(Transform):
    """Every ``size`` neighbouring values times the orthonormal Hadamard matrix in Sylvester's order.

    It is its own inverse, and spreads what is large over many values. The size is a power of two that divides the rows.
    """

    size: int = field()

    @size.validator
    def _power(self, _: object, size: int) -> None:
        if type(size) is not int or size < 2 or size & (size - 1):
            raise FormatError(f"Hadamard({size!r}): the size must be a power of two, and at least 2", where="layout")

    def apply(self, rows: F32, columns: Mapping[str, F32]) -> F32:
        if rows.shape[-1] % self.size:
            raise FormatError(f"rows of {rows.shape[-1]} values are not whole pieces of it", where=repr(self))
        values, half = np.ascontiguousarray(rows), 1
        while half < self.size:
            pairs = values.reshape(-1, 2, half)
            values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
            half *= 2
        return values.reshape(rows.shape) * np.float32(self.size**-0.5)


@frozen(eq=False)
class PerColumn(Transform):
    """Every column times a number of its own, from the weight's side tensor ``side``.

    The bytes of rows do not tell it, so that a decoder leaves it out: `Weight` multiplies by its sides.
    """

    side: str
    size = 1

    def __attrs_post_init__(self) -> None:
        check_kind("PerColumn", str, "the name of a side, as the format's side_names has it", side=self.side)

    def own(self, values: F32) -> F32:
        return values

    def apply(self, rows: F32, columns: Mapping[str, F32]) -> F32:
        if self.side not in columns:
            raise FormatError(f"the tensor with a number for each column, {self.side!r}, is missing", where=repr(self))
        return rows * columns[self.side]
