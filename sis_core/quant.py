"""Quantisation formats, and weights: views of tensors that stay in their format.

A format maps rows of values to rows of bytes. `QuantFormat` is the contract; `BlockFormat` is the usual case in which
each row is cut into equal blocks. A format that declares its `Layout` is decoded by it. Nothing here decodes more than
it was asked for.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np
from attrs import evolve, field, frozen

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.guarded import DAMAGED, check_declared, decoded, unpacked
from sis_core.layout import Layout, Unpacked
from sis_core.sides import Side, SideName
from sis_core.transform import PerColumn, Transform
from sis_core.unpacked import not_finite

ALL = slice(None)
PLAIN = ("F32", "F16", "BF16")
PANEL_VALUES = 1 << 18  # 1 MiB of float32: a decoded panel stays in the second-level cache


class FusedLinear(Protocol):
    """Rung 3: one weight with a kernel of its format's own, kept as long as it is used."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that `bind` will take for the weight; 0 where it reads the weight's raw bytes in place."""

    def bind(self) -> int:
        """Make it: the address of a ``struct sis_linear``, good as long as this object lives. Called once.

        ``include/sis/abi.h`` has the structure and its rules; FormatError where the weight's bytes cannot be used.
        """


def usual_error(bits_per_weight: float) -> float:
    """What a format of so many bits should lose of normal values at most: root mean square, as a share of theirs.

    That is what two bits fewer could reach, since formats differ.
    """
    return float(max(2.0 ** (2 - bits_per_weight), 2.0**-8))


class QuantFormat(ABC):
    """A way to store rows of a weight matrix. Instances are immutable and safe to use from many threads.

    Attributes:
        name: the format's name in GGUF's spelling, such as ``Q4_0``; unique among installed formats.
        type_id: the numeric tensor type of GGUF, or None for a format that GGUF has no id for.
        block_size: values per block; a row must hold a whole number of blocks.
        type_size: bytes per block.
        bits_per_weight: size of the format, by default ``8 * type_size / block_size``.
        layout: what the bytes mean, from which `dequantize` and native code follow; or None, the default.
        version: of the bytes, for a format that GGUF has no id for: one more whenever they change. See `of_version`.
    """

    name: ClassVar[str]
    type_id: ClassVar[int | None] = None
    block_size: ClassVar[int] = 1
    type_size: ClassVar[int] = 1
    layout: ClassVar[Layout | None] = None
    version: ClassVar[int] = 1

    def __init_subclass__(cls, **rest: Any) -> None:
        """FormatError, naming the format, when its blocks do not hold what its layout says."""
        super().__init_subclass__(**rest)
        if cls.layout is not None:
            check_declared(cls)
            try:
                cls.layout.check(cls.block_size, cls.type_size)
            except FormatError as error:
                raise FormatError(error.what, where=getattr(cls, "name", cls.__name__), fix=error.fix) from None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.type_size / self.block_size

    @property
    def decoder(self) -> int | None:
        """Address of ``void decode(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_cols, float *out)``.

        None where the format has only Python. Rows lie ``row_bytes`` apart, which may be more than they take. The
        function must be thread-safe and write ``n_rows * n_cols`` floats. Whoever returns an address keeps the
        library that owns it alive for as long as the format lives.
        """
        return None

    def native_linear(self, weight: Weight) -> FusedLinear | None:
        """A kernel of the format's own for a matrix, or None, the default, where it has none on this machine.

        Asked when memory is planned and again when the weight is bound, so it must be quick, and read no bytes.
        """
        return None

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of one row of ``n_cols`` values; FormatError when the row is not a whole number of blocks."""
        n_blocks, rest = divmod(n_cols, self.block_size)
        if rest or n_cols <= 0:
            raise FormatError(
                f"a row of {n_cols} values is not a whole number of blocks of {self.block_size}",
                where=self.name,
                fix="use a format whose block size divides the row",
            )
        return n_blocks * self.type_size

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        """Decode ``rows`` ``(n_rows, row_bytes(n_cols))`` to float32 ``(n_rows, n_cols)``: the tensor's own values.

        ``rows`` is read-only and may be a view into the file. The result may be a view too: callers do not write to it.
        By default as the layout says; a format without one has a decoder of its own.
        """
        layout, is_own = self._layout(), type(self).unpack is not QuantFormat.unpack
        values = layout.values(unpacked(self, rows, n_cols) if is_own else self._unpack(layout, rows, n_cols))
        return layout.transform.own(values) if layout.transform else values

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        """What `Layout` calls the numbers in ``rows`` ``(n_rows, row_bytes(n_cols))``, which are read-only.

        Called for some rows at a time, once for each weight, when native code packs them. By default the layout's runs
        are read; a format whose numbers lie otherwise brings its own.
        """
        return self._unpack(self._layout(), rows, n_cols)

    def _unpack(self, layout: Layout, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        try:
            return layout.unpack_blocks(rows.reshape(-1, self.type_size), self.block_size, len(rows))
        except FormatError as error:
            raise FormatError(error.what, where=self.name, fix=error.fix) from None

    def of_version(self, version: int) -> QuantFormat:
        """What reads files of that ``version`` of the format: itself for its own, by default nothing for another.

        A file says which one its tensors are in (`version_key`; 1 where it says nothing). A format whose bytes have
        changed returns here a codec of the same name for each older version that it still reads.

        Raises:
            FormatError: nothing reads that version.
        """
        if version == self.version:
            return self
        newer = version > self.version
        raise FormatError(
            f"version {version} of the format {self.name} is not known: what is installed reads version {self.version}",
            where=self.name,
            fix="install a newer version of the plugin that brings it"
            if newer
            else "quantise the model again from its original, or install the version of the plugin that wrote it",
        )

    def side_names(self, tensor: str) -> Mapping[str, SideName]:
        """Tensors beside ``tensor`` of a file that belong to it, by the names that the format has for them.

        Those that the file has are its weight's sides, and nobody else's: `Weight.side`.
        """
        return {}

    def make_sides(self, weight: Weight, importance: F32 | None) -> Mapping[str, F32]:
        """The numbers of sides that ``weight`` is to have once it is encoded, by the names of `side_names`.

        Its values are divided by them before `quantize` is given rows, since they are multiplied by them when they are
        read; `sis quantize` writes them beside it in F32. By default none; called once for each tensor.

        Args:
            weight: what is encoded, decoded in rows by `Weight.take` and `Weight.panels`.
            importance: mean squares of what goes into each column, float32 ``(n_expert, n_cols)``; a matrix is one;
                None where it was not measured.

        Returns:
            float32 ``(1,)``, ``(n_expert,)``, ``(n_rows,)`` or ``(n_cols,)`` for each name, as its axis is; no zeros.
        """
        return {}

    @property
    def makes_sides(self) -> bool:
        return type(self).make_sides is not QuantFormat.make_sides

    def _layout(self) -> Layout:
        if self.layout is None:
            raise FormatError(
                "has neither a layout nor a decoder", where=self.name, fix="give it a layout, or write dequantize"
            )
        return self.layout

    def quantize(self, values: F32) -> U8:
        """Encode float32 ``(n_rows, n_cols)`` to bytes ``(n_rows, row_bytes(n_cols))``; FormatError if it cannot.

        ``values`` are not written to. Each row's bytes depend on that row alone, so a matrix can be encoded in panels.
        """
        raise FormatError("has no encoder", where=self.name, fix="it can be read only: choose another format to write")

    def quantize_weighted(self, values: F32, importance: F32) -> U8:
        """As `quantize`, with errors in column ``i`` counted ``importance[i]`` times; ``importance`` is ``(n_cols,)``.

        A format that cannot make use of importance leaves this as it is.
        """
        return self.quantize(values)

    @property
    def can_quantize(self) -> bool:
        return type(self).quantize is not QuantFormat.quantize

    @property
    def uses_importance(self) -> bool:
        return type(self).quantize_weighted is not QuantFormat.quantize_weighted or self.makes_sides

    def check_rows(self, rows: U8, n_cols: int) -> None:
        """FormatError unless ``rows`` are uint8 ``(n_rows, row_bytes(n_cols))``: the first line of most decoders."""
        row_bytes = self.row_bytes(n_cols)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != row_bytes:
            raise FormatError(
                f"decodes uint8 (n_rows, {row_bytes}) for rows of {n_cols} values, not {rows.dtype} {rows.shape}",
                where=self.name,
            )

    def check_values(self, values: F32, *, finite: bool = False) -> None:
        """FormatError unless ``values`` are float32 ``(n_rows, n_cols)`` of whole blocks: for encoders.

        With ``finite``, NaN and infinity are refused too: few formats can hold them.
        """
        if values.dtype != np.float32 or values.ndim != 2:
            raise FormatError(f"encodes float32 (n_rows, n_cols), not {values.dtype} {values.shape}", where=self.name)
        self.row_bytes(values.shape[1])
        if finite and not np.isfinite(values).all():
            raise FormatError("cannot hold NaN or infinity", where=self.name)

    def __repr__(self) -> str:
        return f"<format {self.name}>"


def version_key(format: str) -> str:
    """The metadata key that says which version of a format without an id a file is in."""
    return f"sis.format.{format}.version"


class BlockFormat(QuantFormat):
    """A format in which every block of ``block_size`` values takes ``type_size`` bytes of its own.

    An author declares a layout or writes `dequantize_blocks`, and `quantize_blocks` if the format is to be written too.
    In both, numpy does not warn of overflow and NaN: a damaged block may hold an infinite scale, which makes NaN of
    zeros, as in C; and values may be too large for a half-precision scale, which `sis quantize` finds out and refuses.
    """

    def dequantize_blocks(self, blocks: U8) -> F32:
        """Decode ``(n_blocks, type_size)`` bytes to float32 ``(n_blocks, block_size)``. The bytes are read-only."""
        return super().dequantize(blocks, self.block_size)

    def quantize_blocks(self, values: F32) -> U8:
        """Encode float32 ``(n_blocks, block_size)`` to ``(n_blocks, type_size)`` bytes, not writing to the values."""
        return super().quantize(values)

    @property
    def can_quantize(self) -> bool:
        kind = type(self)
        return kind.quantize_blocks is not BlockFormat.quantize_blocks or kind.quantize is not BlockFormat.quantize

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        self.check_rows(rows, n_cols)
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.dequantize_blocks(rows.reshape(-1, self.type_size))
        return values.reshape(len(rows), n_cols)

    def quantize(self, values: F32) -> U8:
        self.check_values(values)
        n_rows, n_cols = values.shape
        with np.errstate(over="ignore", invalid="ignore"):
            blocks = self.quantize_blocks(values.reshape(-1, self.block_size))
        return blocks.reshape(n_rows, self.row_bytes(n_cols))


class F32Format(BlockFormat):
    """IEEE 754 binary32: decoding is a view where the bytes are aligned, else a copy."""

    name, type_id, block_size, type_size = "F32", 0, 1, 4

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        self.check_rows(rows, n_cols)
        return self.dequantize_blocks(rows)

    def dequantize_blocks(self, blocks: U8) -> F32:
        return np.require(np.ascontiguousarray(blocks).view("<f4"), np.float32, "A")

    def quantize_blocks(self, values: F32) -> U8:
        return np.ascontiguousarray(values, "<f4").view(np.uint8)


class F16Format(BlockFormat):
    """IEEE 754 binary16, rounded to nearest even; values past 65504 become infinite, as in every other converter."""

    name, type_id, block_size, type_size = "F16", 1, 1, 2

    def dequantize_blocks(self, blocks: U8) -> F32:
        return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)

    def quantize_blocks(self, values: F32) -> U8:
        return np.ascontiguousarray(values).astype("<f2").view(np.uint8)


class BF16Format(BlockFormat):
    """bfloat16: the upper half of binary32, rounded to nearest even, NaN kept quiet."""

    name, type_id, block_size, type_size = "BF16", 30, 1, 2

    def dequantize_blocks(self, blocks: U8) -> F32:
        bits = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)

    def quantize_blocks(self, values: F32) -> U8:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16  # wraps around for some NaN, which are replaced
        quiet = bits >> 16 | 0x40  # rounding up could turn a NaN into infinity
        return np.where(np.isnan(values), quiet, rounded).astype("<u2").view(np.uint8)


@frozen(eq=False)
class Weight:
    """A tensor, or a slice of one, that stays in its format until rows of it are asked for.

    Attributes:
        name: the tensor's name in the file, for messages.
        format: the codec of its bytes.
        shape: ``(n_rows, n_cols)`` for a matrix, ``(n,)`` for a vector, ``(n_expert, n_rows, n_cols)`` for a stack.
        read: returns the whole tensor's bytes ``(n_bytes,)``; raises ClosedError after the model was closed.
        file_shape: the shape of the tensor in the file, of which this may be a slice.
        first_row, first_col: where in the tensor this slice begins, counted in rows and values.
        release: tells the system that the tensor's pages are not needed any more; called after packing.
        copy: returns bytes ``start:stop`` of the tensor, copied, so that a file that is cut meanwhile is an error and
            not the end of the process; None where ``read`` is memory.
        check: raises GGUFError when the file that ``read`` maps has changed; equal for tensors of one file.
        side: numbers beside the tensor, by the format's names for them: the weight's values are multiplied by them.
    """

    name: str
    format: QuantFormat
    shape: tuple[int, ...]
    read: Callable[[], U8]
    file_shape: tuple[int, ...]
    first_row: int = 0
    first_col: int = 0
    release: Callable[[], None] = lambda: None
    copy: Callable[[int, int], U8] | None = None
    check: Callable[[], None] = lambda: None
    side: Mapping[str, Side] = field(factory=dict)

    @classmethod
    def of(cls, name: str, format: QuantFormat, shape: tuple[int, ...], read: Callable[[], U8]) -> Weight:
        """A weight that is a whole tensor; FormatError when its rows are not whole blocks."""
        format.row_bytes(shape[-1] if shape else 1)
        return cls(name, format, shape or (1,), read, shape or (1,))

    @classmethod
    def from_array(cls, name: str, values: F32, format: QuantFormat | None = None) -> Weight:
        """A weight held in memory: a copy of ``values`` float32, encoded by ``format`` (F32 by default)."""
        format = format or F32Format()
        rows = np.array(values, np.float32, order="C").reshape(
            -1, values.shape[-1]
        )  # not a view that keeps a file open
        data = format.quantize(rows).reshape(-1)
        return cls.of(name, format, values.shape, lambda: data)

    @property
    def n_cols(self) -> int:
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        return self.n_rows * self.format.row_bytes(self.n_cols)

    @property
    def raw(self) -> U8:
        """The bytes of this view ``(n_rows, row_bytes)``: read-only, strided when columns were cut, never copied.

        A view into a mapped file ends the process when it is read after somebody cut the file; `raw_rows` does not.
        """
        row_bytes = self.format.row_bytes(self.file_shape[-1])
        return self._columns(self.read().reshape(-1, row_bytes)[self.first_row : self.first_row + self.n_rows])

    def raw_rows(self, start: int, stop: int) -> U8:
        """Rows ``start:stop`` of `raw`, read from the file; GGUFError when it has changed."""
        if self.copy is None:
            return self.raw[start:stop]
        row_bytes, first = self.format.row_bytes(self.file_shape[-1]), self.first_row
        rows = self.copy((first + start) * row_bytes, (first + min(stop, self.n_rows)) * row_bytes)
        return self._columns(rows.reshape(-1, row_bytes))

    def _columns(self, rows: U8) -> U8:
        start = self.format.row_bytes(self.first_col) if self.first_col else 0
        view = rows[:, start : start + self.format.row_bytes(self.n_cols)]
        view.flags.writeable = False  # of this view alone: a codec that writes to its input is found out
        return view

    def rows(self, start: int, stop: int) -> Weight:
        """The rows ``start:stop`` of a matrix."""
        if not 0 <= start < stop <= self.n_rows:
            raise FormatError(f"has {self.n_rows} rows, not rows {start} to {stop}", where=self.name)
        side = {name: side.rows(start, stop, self.n_rows) for name, side in self.side.items()}
        return evolve(self, shape=(stop - start, self.n_cols), first_row=self.first_row + start, side=side)

    @property
    def transform(self) -> Transform | None:
        """What the format's layout says stands between stored values and the weight's own, and something does.

        A `PerColumn` whose side the file has not is no transform: its numbers are in what comes before.
        """
        transform = self.format.layout.transform if self.format.layout else None
        return None if isinstance(transform, PerColumn) and transform.side not in self.side else transform

    def cols(self, start: int, stop: int) -> Weight:
        """The columns ``start:stop`` of a matrix, on block borders; only where blocks stand on their own."""
        if not isinstance(self.format, BlockFormat):
            raise FormatError(f"rows of {self.format.name} can only be decoded whole", where=self.name)
        if not 0 <= start < stop <= self.n_cols or start % self.format.block_size or stop % self.format.block_size:
            raise FormatError(
                f"columns {start} to {stop} of {self.n_cols} are not whole blocks of {self.format.block_size}",
                where=self.name,
            )
        side = {
            name: evolve(side, values=side.values[start:stop]) if side.axis == "column" else side
            for name, side in self.side.items()
        }
        return evolve(self, shape=(*self.shape[:-1], stop - start), first_col=self.first_col + start, side=side)

    def expert(self, index: int) -> Weight:
        """Matrix ``index`` of a stack ``(n_expert, n_rows, n_cols)``."""
        n_rows, n_expert = self.shape[-2], prod(self.shape[:-2])
        if not 0 <= index < n_expert:
            raise FormatError(f"has {n_expert} experts, not an expert {index}", where=self.name)
        return self.rows(index * n_rows, (index + 1) * n_rows)

    def take(self, indices: np.ndarray) -> F32:
        """Decode the rows ``indices`` ``(k,)`` to float32 ``(k, n_cols)``."""
        if self.copy is None:
            return self.decode(self.raw[indices], indices)
        rows = [self.raw_rows(i, i + 1) for i in indices.tolist()]
        return self.decode(np.concatenate(rows) if rows else self.raw_rows(0, 0), indices)

    def panels(self) -> Iterator[tuple[int, F32]]:
        """Decode the matrix panel by panel: pairs of the first row and float32 ``(n, n_cols)``."""
        step = max(1, PANEL_VALUES // self.n_cols)
        for start in range(0, self.n_rows, step):
            yield start, self.decode(self.raw_rows(start, start + step), slice(start, start + step))

    def dequantize(self) -> F32:
        """Decode everything to float32 of ``shape``; for vectors and small tables."""
        return self.decode(self.raw_rows(0, self.n_rows)).reshape(self.shape)

    def decode(self, rows: U8, numbers: slice | np.ndarray = ALL) -> F32:
        """Decode raw rows of this weight, all or those of these numbers, and multiply them by its sides.

        Raises:
            FormatError: the codec fails or returns a wrong shape or type.
        """
        values = decoded(self.format, rows, self.n_cols, self.name)
        for side in self.side.values():
            values = values * side.of_rows(numbers, self.n_rows)
        return values

    def unpack(self, rows: U8, first_row: int = 0) -> Unpacked:
        """What the layout of the format finds in raw rows of this weight, from ``first_row`` on; without its sides.

        Raises:
            FormatError: naming the weight: the format breaks a promise, or a scale or minimum is no number.
        """
        found = unpacked(self.format, rows, self.n_cols, self.name)
        if fault := not_finite(found, first_row):
            raise FormatError(fault, where=f"{self.name} in {self.format.name}", fix=DAMAGED)
        return found

    def check_numbers(self, indices: np.ndarray | None = None) -> None:
        """FormatError naming the first scale or minimum that is no number, of rows ``indices`` ``(k,)`` or of all.

        For whoever computed something that is no number; nothing where the format has no layout.
        """
        if self.format.layout is None:
            return
        if indices is not None:
            for i in indices.tolist():
                self.unpack(self.raw_rows(i, i + 1), i)
            return
        step = max(1, PANEL_VALUES // self.n_cols)
        for start in range(0, self.n_rows, step):
            self.unpack(self.raw_rows(start, start + step), start)

    def __repr__(self) -> str:
        return f"<weight {self.name} {self.format.name} {self.shape}>"
