"""Weights as the kernels read them: packed into tiles, or in place.

Formats that the kernels do not know come in by the first two rungs of the contract: with a C decoder they stay packed
as they are and are decoded while they are used; with Python alone they are decoded once, to half precision, or to
bfloat16 where half precision has not the range.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

import numpy as np

from sis_core import quant
from sis_core.arrays import F32
from sis_core.errors import FormatError
from sis_core.native import abi
from sis_core.native.library import Library, address
from sis_core.native.memory import Arena

MAX_F16 = 6e4
MIN_F16 = 1e-3  # a tensor whose largest value is below this would lose its small ones to half precision's denormals

Key = tuple[str, int, int, tuple[int, ...], int]


def key(weight: quant.Weight) -> Key:
    """What makes two views the same bytes."""
    return (weight.name, weight.first_row, weight.first_col, weight.shape, id(weight.read))


def _brings_linear(weight: quant.Weight) -> bool:
    """Rung 3: the format has ``native_linear(weight) -> int``, the address of a ``struct sis_linear`` that it owns."""
    return callable(getattr(weight.format, "native_linear", None))


class Store:
    """The bound weights of one model: each packed once, however often it is used."""

    def __init__(self, library: Library, n_threads: int, pack: bool) -> None:
        self.library, self.n_threads, self.pack = library, n_threads, pack
        self._bound: dict[Key, abi.Weight] = {}
        self._owners: list[object] = []

    def format_of(self, weight: quant.Weight) -> int:
        """The kernels' number of a weight's format as it will be bound."""
        if _brings_linear(weight):
            return abi.FOREIGN
        known = abi.FORMATS.get(weight.format.name)
        if known is not None:
            return known
        return abi.DECODED if weight.format.decoder is not None else abi.F16

    def packs(self, weight: quant.Weight) -> bool:
        """Whether binding this weight copies it."""
        if _brings_linear(weight):
            return False
        if weight.format.name not in abi.FORMATS:
            return weight.format.decoder is None
        return self.pack

    def nbytes(self, weights: Iterable[quant.Weight]) -> int:
        """Bytes of memory that packing these takes."""
        unique = {key(w): w for w in weights}
        return sum(self._tile_bytes(w) for w in unique.values() if self.packs(w))

    def _tile_bytes(self, weight: quant.Weight) -> int:
        return int(self.library.tile_bytes(self.format_of(weight), weight.n_rows, weight.n_cols))

    def bind(self, weights: Iterable[quant.Weight], progress: Callable[[int, int], None] | None) -> None:
        """Bind all of these, packing those that are to be packed into one piece of memory."""
        fresh = {key(w): w for w in weights if key(w) not in self._bound}
        total = sum(self._tile_bytes(w) for w in fresh.values() if self.packs(w))
        arena = Arena(total + 64 * len(fresh)) if total else None
        if arena:
            self._owners.append(arena)
        done = 0
        for name, weight in fresh.items():
            if not self.packs(weight):
                self._bound[name] = self._in_place(weight)
                continue
            assert arena is not None
            size = self._tile_bytes(weight)
            self._bound[name] = self._packed(weight, arena.take(size))
            weight.release()
            done += size
            if progress:
                progress(done, total)

    def __getitem__(self, weight: quant.Weight) -> abi.Weight:
        return self._bound[key(weight)]

    def vector(self, weight: quant.Weight) -> int:
        """The address of a vector decoded to float32."""
        return self.floats(weight.dequantize().reshape(-1))

    def floats(self, values: F32) -> int:
        """The address of an array that is kept as long as the store."""
        array = np.ascontiguousarray(values, np.float32)
        self._owners.append(array)
        return address(array)

    def _in_place(self, weight: quant.Weight) -> abi.Weight:
        if _brings_linear(weight):
            return self._foreign(weight)
        raw = weight.raw
        bound = abi.Weight(self.format_of(weight), 0, weight.n_rows, weight.n_cols)
        bound.raw, bound.row_bytes = address(raw), raw.strides[0]
        bound.decode = weight.format.decoder
        self._owners += [raw, weight.format]
        return bound

    def _foreign(self, weight: quant.Weight) -> abi.Weight:
        made = weight.format.native_linear(weight)  # type: ignore[attr-defined]
        found = abi.LinearObject.from_address(made)
        if found.abi != abi.ABI or not 0 < found.parts < 1 << 31 or not found.run:
            raise FormatError(
                f"made a linear for ABI {found.abi} in {found.parts} parts; this sis-core speaks ABI {abi.ABI}",
                where=f"format {weight.format.name}",
                fix="install versions of the two that belong together",
            )
        bound = abi.Weight(abi.FOREIGN, 0, weight.n_rows, weight.n_cols)
        bound.linear = made
        self._owners += [weight, weight.format]
        return bound

    def _packed(self, weight: quant.Weight, tiles: int) -> abi.Weight:
        if weight.format.name in abi.FORMATS:
            return self._pack_rows(self._source(weight), tiles, weight.n_rows)
        format: quant.QuantFormat = quant.F16Format()
        most = self._pack_decoded(weight, tiles, format)
        if not MIN_F16 <= most <= MAX_F16:
            format = quant.BF16Format()
            self._pack_decoded(weight, tiles, format)
        bound = abi.Weight(abi.FORMATS[format.name], 0, weight.n_rows, weight.n_cols)
        bound.tiles = tiles
        return bound

    def _pack_decoded(self, weight: quant.Weight, tiles: int, format: quant.QuantFormat) -> float:
        """Decode a weight, encode it in ``format`` and pack it panel by panel; the largest magnitude that was seen."""
        # Sixteen rows make a tile, so panels of whole tiles can be packed one after another.
        panel_rows = max(1, quant.PANEL_VALUES // weight.n_cols // abi.TILE) * abi.TILE
        raw, most = weight.raw, 0.0
        tile_bytes = int(self.library.tile_bytes(abi.FORMATS[format.name], abi.TILE, weight.n_cols))
        for start in range(0, weight.n_rows, panel_rows):
            values = weight.decode(raw[start : start + panel_rows])
            most = max(most, float(np.abs(values).max()))
            rows = format.quantize(np.ascontiguousarray(values))
            source = abi.Weight(abi.FORMATS[format.name], 0, len(rows), weight.n_cols)
            source.raw, source.row_bytes = address(rows), rows.strides[0]
            self.library.pack(ctypes.addressof(source), tiles + start // abi.TILE * tile_bytes, self.n_threads)
        return most

    def _source(self, weight: quant.Weight) -> tuple[abi.Weight, object]:
        raw = weight.raw
        source = abi.Weight(abi.FORMATS[weight.format.name], 0, weight.n_rows, weight.n_cols)
        source.raw, source.row_bytes = address(raw), raw.strides[0]
        return source, raw

    def _pack_rows(self, owned: tuple[abi.Weight, object], tiles: int, n_rows: int) -> abi.Weight:
        source, _ = owned
        self.library.pack(ctypes.addressof(source), tiles, self.n_threads)
        bound = abi.Weight(source.format, 0, n_rows, source.n_cols)
        bound.tiles = tiles
        return bound


class RowReader:
    """Single rows of a table as float32: the embedding."""

    def __init__(self, library: Library, weight: quant.Weight) -> None:
        self.library, self.weight = library, weight
        self._bound: abi.Weight | None = None
        if weight.format.name in abi.FORMATS or weight.format.decoder is not None:
            raw = weight.raw
            self._owner = raw
            number = abi.FORMATS.get(weight.format.name, abi.DECODED)
            self._bound = abi.Weight(number, 0, weight.n_rows, weight.n_cols)
            self._bound.raw, self._bound.row_bytes = address(raw), raw.strides[0]
            self._bound.decode = weight.format.decoder
            self._address = ctypes.addressof(self._bound)

    def __call__(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> F32:
        """``(n,)`` row numbers, which the caller has checked, to ``(n, n_cols)``."""
        if self._bound is None:
            return self.weight.take(rows)
        out = np.empty((len(rows), self.weight.n_cols), np.float32)
        self.library.take(self._address, address(rows), len(rows), address(out))
        return out
