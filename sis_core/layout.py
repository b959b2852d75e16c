"""What a weight format's bytes mean, declared: codes, what a code stands for, scales, and where all of it lies.

A format that declares its `Layout` needs no decoder, and native backends pack it into tiles, as they pack GGML's own
types. The definition is `Layout.values`: for each value of a row, with the numbers of the group that it belongs to,

    value = scale * (code - zero) + minimum        without a table
    value = scale * table[code] + minimum          with one

in float32, where scale and minimum are single numbers or products of two levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from reprlib import repr as shown
from typing import Any, Literal

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, F64, I8, U8
from sis_core.discovery.given import check_kind, check_number, check_whole
from sis_core.errors import FormatError
from sis_core.fields import (
    FLOAT_BYTES,
    KINDS,
    MAX_BITS,
    Bits,
    Kind,
    Runs,
    as_runs,
    check_apart,
    check_places,
    check_runs,
    read_codes,
    read_numbers,
)
from sis_core.transform import Transform
from sis_core.unpacked import Unpacked, check_unpacked, times

__all__ = ["Bits", "ByteTable", "Layout", "Scale", "Unpacked"]


@frozen(eq=False)
class Scale:
    """Numbers that several values share.

    Attributes:
        kind: how one is stored: ``f32``, ``f16``, ``bf16``, ``e8m0`` (a power of two), ``ue4m3`` (GGML's 8-bit float
            without a sign), or ``uint`` and ``int`` of as many bits as ``at`` says.
        at: where in the block: a byte, for floats side by side, or runs: a `Bits`, or several that follow each other.
            None for a format with an `unpack` of its own.
        per: values that share one, or ``"row"``; by default the layout's group.
        less: what is taken from each as it is stored,
        factor: and what it is multiplied by then: -1 for minima that are stored with the sign turned.
        times: the upper level, whose numbers these are multiplied by.

    Raises:
        FormatError: a kind that is none, a place that does not say of how many bits, or three levels.
    """

    kind: Kind
    at: int | Runs | None = None
    per: int | Literal["row"] | None = None
    less: int = 0
    factor: float = 1.0
    times: Scale | None = None

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FormatError(
                f"{self.kind!r} is no kind of number", where="layout", fix=f"there are {', '.join(KINDS)}"
            )
        if isinstance(self.at, int):
            check_whole("Scale", 0, at=self.at)
            if self.kind not in FLOAT_BYTES:
                raise FormatError(
                    f"{self.kind} at byte {self.at} does not say of how many bits",
                    where="layout",
                    fix=f"give Bits({self.at}, bits)",
                )
        else:
            check_places("Scale", at=self.at)
        if isinstance(self.per, str) and self.per != "row":
            raise FormatError(
                f"a scale for each {self.per!r} is unknown",
                where="layout",
                fix="give 'row', or of how many values; what a whole tensor shares an unpack gives each row",
            )
        if self.per is not None and self.per != "row":
            check_whole("Scale", 1, per=self.per)
        check_kind("Scale", int, "a whole number", less=self.less)
        check_number("Scale", factor=self.factor)
        check_kind("Scale", (Scale, type(None)), "a Scale, or None", times=self.times)
        if self.times and self.times.times:
            raise FormatError("there are three levels of scales", where="layout", fix="multiply two of them together")

    @property
    def runs(self) -> tuple[Bits, ...]:
        """`at` as runs."""
        return (Bits(self.at, 8 * FLOAT_BYTES[self.kind]),) if isinstance(self.at, int) else as_runs(self.at)

    def read(self, blocks: U8, n: int) -> F32:
        """The ``n`` numbers of each block, of this level alone: float32 ``(n_blocks, n)``."""
        return np.asarray((read_numbers(self.kind, self.runs, blocks, n) - self.less) * self.factor, np.float32)

    def check(self, name: str, block_size: int, type_size: int, group: int) -> None:
        """FormatError when blocks do not hold the numbers of this level where they are said to lie."""
        if self.per == "row":
            raise FormatError(
                "a number for each row lies in no block", where="layout", fix="give the format an unpack of its own"
            )
        if block_size % (self.per or group):
            raise FormatError(
                f"a block of {block_size} values is no whole number of groups of {self.per or group}",
                where="layout",
                fix="set block_size to a multiple of the values that share a number",
            )
        check_runs(name, self.runs, self.kind, self.count(block_size, group), type_size)

    def count(self, block_size: int, group: int) -> int:
        """How many of these a block has."""
        return block_size // (self.per if isinstance(self.per, int) else group)


@frozen(eq=False)
class ByteTable:
    """A table as kernels have it: ``table[i]`` is ``step * numbers[i]``, but for the error.

    Attributes:
        numbers: int8 ``(2 ** bits,)``.
        error: the largest, in units of the table.
        share: the error's root mean square, as a part of that which values have that are rounded to the table itself
            (its middle gap over the root of 12). From about a quarter on the rounding is felt.
    """

    step: float
    numbers: I8
    error: float
    share: float

    @classmethod
    def of(cls, table: Sequence[float]) -> ByteTable:
        """The nearest one. It is exact for whole numbers from -128 to 127, and for these times anything."""
        levels = np.asarray(table, np.float64)
        if np.array_equal(levels, np.rint(levels)) and levels.min() >= -128 and levels.max() <= 127:
            return cls(1.0, levels.astype(np.int8), 0.0, 0.0)
        steps = np.abs(levels).max() / np.arange(127, 0, -1)
        numbers = np.rint(levels / steps[:, None])  # (127, 2 ** bits): the largest magnitude is 127 steps, or 126 ...
        errors = np.abs(levels - numbers * steps[:, None])
        largest = errors.max(axis=1)
        best = int((largest > 1.001 * largest.min() + 1e-9 * steps[0]).argmin())  # of equals, the one of most steps
        gaps = np.diff(np.unique(levels))
        own = float(np.median(gaps)) / 12**0.5 if gaps.size else np.inf
        share = float(np.sqrt((errors[best] ** 2).mean())) / own
        return cls(float(steps[best]), numbers[best].astype(np.int8), float(largest[best]), share)


def _table(table: Any) -> Any:
    if table is None or isinstance(table, str):
        return table
    try:
        return tuple(map(float, table))
    except (TypeError, ValueError):
        raise FormatError(f"the table {shown(table)} is no list of numbers", where="layout", fix=_TABLE) from None


_TABLE = "give what each code stands for, as numbers in the order of the codes, or 'row', or None"


@frozen(eq=False)
class Layout:
    """What a format's bytes mean; the arithmetic is at the top of this page.

    Attributes:
        bits: of a code, at most 8.
        group: neighbouring values of a row that share a scale.
        scale: what a group's values are multiplied by.
        minimum: what is added to them then.
        zero: where there is no table, the code that stands for 0: one for all, or a number for each group.
        table: what each of the ``2 ** bits`` codes stands for; ``"row"``: each row has its own, `Unpacked.tables`.
            Kernels have the nearest table of 8-bit whole numbers times a step; `byte_table` says how near it is. What
            would move too far is not packed, nor are tables of rows of which one would.
        codes: where the codes lie in a block. None for a format with an `unpack` of its own.
        transform: what stands between the stored values and the tensor's own.
        two_of_four: whether at most two of every four codes stand for something else than 0, the code of which is
            `zero`: kernels keep no more.
        ternary: whether no code is above 2, so that codes stand for -1, 0 and 1, of ``bits=2`` and ``zero=1``: kernels
            keep five in a byte where two bits for each would take 1.15 times the file's bytes.

    Raises:
        FormatError: parts that cannot be, or contradict each other.
    """

    bits: int
    group: int
    scale: Scale
    minimum: Scale | None = None
    zero: int | Scale = 0
    table: tuple[float, ...] | Literal["row"] | None = field(default=None, converter=_table)
    codes: Runs | None = None
    transform: Transform | None = None
    two_of_four: bool = False
    ternary: bool = False

    def __attrs_post_init__(self) -> None:
        self._check_kinds()
        if isinstance(self.table, tuple):
            if len(self.table) != 1 << self.bits:
                raise FormatError(
                    f"a table of {len(self.table)} numbers does not go with codes of {self.bits} bits",
                    where="layout",
                    fix=f"give {1 << self.bits}, one for each code",
                )
            if not np.isfinite(self.table).all() or not any(self.table):
                raise FormatError(
                    "the table has NaN or infinity in it, or is all zeros", where="layout", fix="give finite numbers"
                )
        if self.table is not None and self.zero != 0:
            raise FormatError("there are a table and a zero", where="layout", fix="let the table say what a code is")
        if isinstance(self.zero, Scale) and (self.minimum or self.zero.times):
            raise FormatError(
                "there are a zero for each group and a minimum, or two levels of zeros",
                where="layout",
                fix="give one of them: a minimum is what is added, a zero the code that stands for 0",
            )
        if self.two_of_four and (self.table is not None or self.minimum or isinstance(self.zero, Scale)):
            raise FormatError(
                "two of four codes are kept, but no code stands for 0 in all groups",
                where="layout",
                fix="give one zero for all",
            )
        if self.ternary and (self.bits != 2 or self.zero != 1 or self.table is not None or self.minimum):
            raise FormatError(
                "codes are ternary, but do not stand for -1, 0 and 1 times a scale",
                where="layout",
                fix="give bits=2 and zero=1, and neither a table nor a minimum",
            )
        for run in as_runs(self.codes):
            if run.width != self.bits:
                raise FormatError(
                    f"codes have {self.bits} bits, but {run} holds {run.width}",
                    where="layout",
                    fix="let bits of the layout and of its codes agree",
                )
        for name, scale in self.levels():
            if self.codes is not None and scale.at is None and scale.per != "row":
                raise FormatError(
                    f"the {name} has no place in the block",
                    where="layout",
                    fix=f"say where it lies: Scale({scale.kind!r}, at=…)",
                )

    def _check_kinds(self) -> None:
        """FormatError for what is not even of the right type."""
        check_whole("Layout", 1, MAX_BITS, bits=self.bits)
        check_whole("Layout", 1, group=self.group)
        words = "a Scale, such as Scale('f16', at=0)"
        check_kind("Layout", Scale, words, scale=self.scale)
        check_kind("Layout", (Scale, type(None)), f"{words}, or None", minimum=self.minimum)
        if not isinstance(self.zero, Scale):
            check_kind("Layout", int, "a whole number, or a Scale for one in each group", zero=self.zero)
            if abs(self.zero) > 1 << self.bits:
                raise FormatError(
                    f"the zero is {self.zero}, but codes of {self.bits} bits go from 0 to {(1 << self.bits) - 1}",
                    where="layout",
                    fix="give the code that stands for 0",
                )
        if isinstance(self.table, str) and self.table != "row":
            raise FormatError(f"the table is {self.table!r}", where="layout", fix=_TABLE)
        check_places("Layout", codes=self.codes)
        words = "a Transform, such as Hadamard(32), or None"
        check_kind("Layout", (Transform, type(None)), words, transform=self.transform)
        check_kind("Layout", bool, "True or False", two_of_four=self.two_of_four, ternary=self.ternary)

    def levels(self) -> list[tuple[str, Scale]]:
        """Scale, minimum and zero by name, each level for itself."""
        found = []
        for name, scale in (("scale", self.scale), ("minimum", self.minimum), ("zero", self.zero)):
            if isinstance(scale, Scale):
                found.append((name, scale))
                if scale.times:
                    found.append((f"{name} of the upper level", scale.times))
        return found

    def check(self, block_size: int, type_size: int) -> None:
        """FormatError unless blocks hold what is said to lie in them, each in bits of its own.

        Only a number for a group may be two things at once, such as scale and minimum. Places are not checked without
        `codes`.
        """
        if self.transform and block_size % self.transform.size:
            raise FormatError(
                f"blocks of {block_size} values are not whole pieces of {self.transform}",
                where="layout",
                fix=f"set block_size to a multiple of {self.transform.size}",
            )
        if self.codes is None:
            return
        check_runs("code", as_runs(self.codes), "uint", block_size, type_size)
        for name, scale in self.levels():
            scale.check(name, block_size, type_size, self.group)
        check_apart(self.parts(block_size), type_size)

    def parts(self, block_size: int) -> list[tuple[str, tuple[Bits, ...], int]]:
        """What lies in a block, each number once: what it is, its runs, and how many there are."""
        found = [("code", as_runs(self.codes), block_size)]
        for name, scale in self.levels():
            place = scale.runs, scale.count(block_size, self.group)
            if place not in [part[1:] for part in found[1:]]:
                found.append((name, *place))
        return found

    @cached_property
    def byte_table(self) -> ByteTable | None:
        """The table as kernels have it, or None where there is none, or one for each row."""
        return ByteTable.of(self.table) if isinstance(self.table, tuple) else None

    @cached_property
    def code_values(self) -> F64 | None:
        """What each code stands for, times the scale: float64 ``(2 ** bits,)``; None where each row has a table."""
        if self.table == "row":
            return None
        codes = np.arange(1 << self.bits) - np.float64(self.zero if isinstance(self.zero, int) else 0)
        return np.asarray(self.table, np.float64) if isinstance(self.table, tuple) else codes

    def unpack_blocks(self, blocks: U8, block_size: int, n_rows: int) -> Unpacked:
        """The numbers in ``(n_rows * n, type_size)`` bytes: each row is ``n`` blocks of ``block_size`` values."""
        if self.codes is None:
            raise FormatError(
                "the layout does not say where the codes lie", fix="give it codes, or the format an unpack of its own"
            )
        codes = read_codes(as_runs(self.codes), blocks, block_size).reshape(n_rows, -1)

        def read(scale: Scale | None) -> F32 | None:
            if scale is None:
                return None
            return scale.read(blocks, scale.count(block_size, self.group)).reshape(n_rows, -1)

        zero, minimum = self.zero, self.minimum
        with np.errstate(over="ignore", invalid="ignore"):  # damaged blocks may hold infinite scales, as in C
            scales, super_scales = read(self.scale), read(self.scale.times)
            assert scales is not None
            if not isinstance(zero, Scale):
                return Unpacked(codes, scales, read(minimum), super_scales, read(minimum.times if minimum else None))
            zeros = read(zero)
            assert zeros is not None
            return Unpacked(codes, scales, -times(times(scales, super_scales), zeros), super_scales)

    def values(self, unpacked: Unpacked) -> F32:
        """What the numbers stand for, as they are stored: float32 ``(n_rows, n_cols)``. This is the definition."""
        codes = unpacked.codes
        if unpacked.tables is not None:
            values = np.take_along_axis(unpacked.tables, codes.astype(np.intp), axis=1)
        elif isinstance(self.table, tuple):
            values = np.asarray(self.table, np.float32)[codes]
        else:
            values = codes.astype(np.float32)
            if isinstance(self.zero, int) and self.zero:
                values -= np.float32(self.zero)
        with np.errstate(over="ignore", invalid="ignore"):
            _each_group(np.multiply, values, unpacked.combined_scales())
            if (minima := unpacked.combined_minima()) is not None:
                _each_group(np.add, values, minima)
        return values

    def check_unpacked(self, unpacked: Unpacked, n_rows: int, n_cols: int) -> None:
        """FormatError unless these are numbers of this layout, for ``n_rows`` rows of ``n_cols`` values."""
        check_unpacked(self, unpacked, n_rows, n_cols)


def _each_group(combine: np.ufunc, values: F32, numbers: F32) -> None:
    """``values`` ``(n_rows, n_cols)`` combined in place with ``(n_rows, k)``, each for its share of the row."""
    groups = values.reshape(*numbers.shape, values.shape[1] // numbers.shape[1])
    combine(groups, numbers[:, :, None], out=groups)
