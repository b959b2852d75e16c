"""Declared layouts as tiles: the numbers of a weight as a kind of tile has them.

What is rounded on the way: tables to 8 bits (`Layout.byte_table`, `RowTables`), scales and minima to half precision or
bfloat16, unless they are whole numbers times a second level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.backends.native import abi
from sis_core.backends.native.kinds import (
    ONE,
    PAIRS,
    RANGES,
    ROW_TABLE,
    SIGNED,
    SUPER,
    TABLE,
    UNSIGNED,
    Kind,
    rough_rows,
)
from sis_core.backends.native.library import address
from sis_core.backends.native.rounded_scales import BFLOAT, factor_of, need_bfloat, scales_of
from sis_core.backends.native.row_tables import RowTables
from sis_core.errors import FormatError
from sis_core.layout import ByteTable, Unpacked
from sis_core.quant import Weight


class TooRoughError(FormatError):
    """Numbers of a row that tiles of the kind would spoil, which nobody knows before all rows are read.

    Attributes:
        instead: the kind that holds them; None where there is none.
    """

    instead: Kind | None = None


LEAST_NORMAL = 2.0**-126
ROW_ENTRIES = 16  # of a row's table in tiles
MAX_HALF, MIN_HALF = 65504.0, 1e-6  # below, what half precision keeps of a number is no digit but the first


class Numbers:
    """Rows as a kind of tile has them: what ``struct sis_unpacked`` points to."""

    def __init__(self, weight: Weight, kind: Kind, rows: U8, first: int) -> None:
        """Unpack ``rows``, from row ``first`` of the weight on; FormatError for numbers that tiles cannot hold."""
        layout = weight.format.layout
        assert layout is not None
        self._weight, self._kind, self._layout = weight, kind, layout
        self.n_rows, self.n_cols = len(rows), weight.n_cols
        unpacked = weight.unpack(rows, first)
        factor = factor_of(weight, slice(first, first + len(rows)))
        table = layout.byte_table
        step = 1.0 if table is None else table.step
        self.table = self._table(table) if kind.codes == TABLE else None
        if layout.table == "row":
            unpacked = self._with_tables_of_rows(unpacked)
        self.codes = self._codes(unpacked, table)
        self._levels(unpacked, np.asarray(factor * np.float32(step), np.float32))

    def record(self) -> abi.Unpacked:
        """The structure; good as long as this lives."""
        names = ("codes", "scales", "minima", "super_scales", "super_minima", "table")
        given = {name: getattr(self, name) for name in names}
        found = {name: address(array) for name, array in given.items() if array is not None}
        return abi.Unpacked(n_rows=self.n_rows, n_cols=self.n_cols, **found)

    def _codes(self, unpacked: Unpacked, table: ByteTable | None) -> U8:
        codes, zero = unpacked.codes, self._layout.zero
        if self._kind.codes == UNSIGNED and self._kind.bits == 8:
            codes = codes - np.uint8(self._middle)  # wraps around, as below
        if self._kind.codes == SIGNED and table is not None:
            codes = table.numbers.view(np.uint8)[codes]
        elif self._kind.codes in (SIGNED, PAIRS) and isinstance(zero, int) and zero:
            codes = codes - np.uint8(zero)  # wraps around: int8 in two's complement
        return np.ascontiguousarray(codes)

    def _table(self, table: ByteTable | None) -> np.ndarray[Any, Any]:
        numbers = np.zeros(64, np.int8)
        if table is not None:
            numbers[: len(table.numbers)] = table.numbers
        else:
            assert isinstance(self._layout.zero, int)
            n = 1 << self._layout.bits
            numbers[:n] = np.arange(n) - self._layout.zero
        return numbers

    def _with_tables_of_rows(self, unpacked: Unpacked) -> Unpacked:
        """With the tables' steps in the scales, and codes for tables of bytes or, where tiles have none, the bytes."""
        assert unpacked.tables is not None
        found, codes = RowTables.of(unpacked.tables), unpacked.codes
        if found.too_rough:
            share = float(np.nan_to_num(found.shares, nan=np.inf).max())
            raise TooRoughError(rough_rows(share), where=self._weight.name)
        if self._kind.codes == ROW_TABLE:
            self.table = np.zeros((self.n_rows, ROW_ENTRIES), np.int8)
            self.table[:, : found.numbers.shape[1]] = found.numbers
        else:
            codes = np.take_along_axis(found.numbers, codes.astype(np.intp), axis=1).view(np.uint8)
        return evolve(unpacked, codes=codes, scales=unpacked.scales * found.steps, tables=None)

    def _levels(self, unpacked: Unpacked, factor: F32) -> None:
        """Scales and minima, times ``factor`` ``(n_rows, 1)``; minima are what is subtracted."""
        n, supers = -(-self.n_cols // self._kind.group), self.n_cols // SUPER
        self.scales = self.minima = self.super_scales = self.super_minima = None
        minima = self._kind.codes == UNSIGNED
        if self._kind.scales in RANGES:
            assert unpacked.super_scales is not None
            self.scales, self.super_scales = spread(unpacked.scales, n), spread(unpacked.super_scales * factor, supers)
            if minima:
                assert unpacked.minima is not None
                assert unpacked.super_minima is not None
                sign = np.float32(-1 if unpacked.minima.max(initial=0) > 0 else 1)  # whole minima are not negative
                self.minima = spread(unpacked.minima * -sign, n)
                self.super_minima = spread(unpacked.super_minima * (factor * sign), supers)
            self._check_whole()
        elif self._kind.scales == ONE:
            self.super_scales = spread(unpacked.combined_scales() * factor, supers)
        else:
            scales = scales_of(self._layout, unpacked, factor)
            self._check_digits(scales)
            self.scales = spread(scales, n)
            if minima:
                zero = np.float32(self._layout.zero if isinstance(self._layout.zero, int) else 0)
                lowest = unpacked.combined_minima()
                found = spread(scales * zero if lowest is None else -lowest * factor, n)
                self.minima = found - self.scales * np.float32(self._middle)
        self._check_range()

    @property
    def _middle(self) -> int:
        """What is taken from codes that products take as signed, and so from minima times the scale."""
        return 1 << self._layout.bits - 1 if self._kind.codes == UNSIGNED and self._kind.bits == 8 else 0

    def _check_digits(self, scales: F32) -> None:
        """`TooRoughError` where another kind would keep more of these scales, and this one too little."""
        if self._kind.instead is not None and need_bfloat(scales):
            error = TooRoughError("half precision has not the range of its scales", where=self._weight.name)
            error.instead = self._kind.instead
            raise error

    def _check_whole(self) -> None:
        for numbers, (least, most) in zip((self.scales, self.minima), RANGES[self._kind.scales], strict=True):
            if numbers is not None and not (
                np.array_equal(numbers, np.rint(numbers)) and numbers.min() >= least and numbers.max() <= most
            ):
                raise FormatError(
                    f"unpack gives lower scales that are no whole numbers from {least} to {most}",
                    where=self._weight.name,
                )

    def _check_range(self) -> None:
        """Refuse what is no number any more as tiles have it, unless it multiplies nothing but zeros."""
        levels = (self.super_scales, self.super_minima) if self.super_scales is not None else (self.scales, self.minima)
        for numbers in levels:
            most = 0.0 if numbers is None else float(np.abs(numbers).max())
            if self._holds(most):
                continue
            if most < 1 and not self._any_value():
                self.scales, self.minima, self.super_scales, self.super_minima = (
                    None if level is None else np.zeros_like(level)
                    for level in (self.scales, self.minima, self.super_scales, self.super_minima)
                )
                return
            name = "bfloat16" if self._kind.scales == BFLOAT else "half precision"
            raise FormatError(
                f"has scales or minima up to {most:g}, which {name} cannot hold",
                where=self._weight.name,
                fix="choose --backend numpy",
            )

    def _holds(self, most: float) -> bool:
        """Whether numbers of which this is the largest keep their digits."""
        if self._kind.scales == BFLOAT:  # of denormals, those that are exact do
            return most == 0 or not most < LEAST_NORMAL or (most * 2.0**133).is_integer()
        return not (most > MAX_HALF or 0 < most < MIN_HALF)

    def _any_value(self) -> bool:
        """Whether a code stands for something; with minima each does."""
        if self._kind.codes == UNSIGNED:
            return True
        if self._kind.codes == ROW_TABLE:
            return bool(np.take_along_axis(self.table, self.codes.astype(np.intp), axis=1).any())
        return bool(self.codes.any() if self.table is None else self.table[self.codes].any())


def spread(numbers: F32, n: int) -> F32:
    """``(n_rows, k)`` as contiguous float32 ``(n_rows, n)``, each number for its share of the row.

    FormatError where there are more numbers than the layout says, which tiles have no place for.
    """
    if n % numbers.shape[1]:
        raise FormatError(
            f"unpack gives {numbers.shape[1]} scales for a row whose layout has at most {n} in tiles",
            fix="let the layout's group be the values that share one",
        )
    return np.ascontiguousarray(np.repeat(numbers, n // numbers.shape[1], axis=1), np.float32)
