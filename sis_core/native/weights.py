"""Weights as the kernels read them: packed into tiles, or in place.

Formats that the kernels do not know come in by the first two rungs of the contract: with a C decoder, their own
or one of the library's, they stay packed as they are and are decoded while they are used; with Python alone they are
decoded once, to half precision, or to bfloat16 where half precision has not the range.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

import numpy as np

from sis_core import quant
from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.native import abi
from sis_core.native.library import Library, address
from sis_core.native.memory import HUGE, Arena

PIECE_BYTES = 16 << 20  # packed in one call: between calls the original's pages are given back, and Ctrl-C is heard
MAX_F16 = 6e4
MIN_F16 = 1e-3  # a tensor whose largest value is below this would lose its small ones to half precision's denormals

Key = tuple[str, int, int, tuple[int, ...], int]


def key(weight: quant.Weight) -> Key:
    """What makes two views the same bytes."""
    return (weight.name, weight.first_row, weight.first_col, weight.shape, id(weight.read))


def _brings_linear(weight: quant.Weight) -> bool:
    """Rung 3: the format has ``native_linear(weight) -> int``, the address of a ``struct sis_linear`` that it owns."""
    return callable(getattr(weight.format, "native_linear", None))


def decoder_of(library: Library, format: quant.QuantFormat) -> int | None:
    """The address of a format's C decoder: its own, else the library's."""
    found = format.decoder or library.decoder(format.name.encode())
    return int(found) if found else None


def _decodes(library: Library, weight: quant.Weight) -> bool:
    """Whether native code can decode rows of this weight."""
    return weight.format.name in abi.FORMATS or decoder_of(library, weight.format) is not None


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
        return abi.F16 if self.only_python(weight) else abi.DECODED

    def only_python(self, weight: quant.Weight) -> bool:
        """Rung 1: nothing native can decode this weight or multiply by it."""
        return not (_brings_linear(weight) or _decodes(self.library, weight))

    def packs(self, weight: quant.Weight) -> bool:
        """Whether binding this weight copies it."""
        return self.only_python(weight) or (self.pack and not _brings_linear(weight))

    def nbytes(self, weights: Iterable[quant.Weight]) -> int:
        """Bytes of memory that packing these takes."""
        unique = {key(w): w for w in weights}
        return sum(self._tile_bytes(w) for w in unique.values() if self.packs(w))

    def _tile_bytes(self, weight: quant.Weight) -> int:
        if self.format_of(weight) == abi.DECODED:  # copied as it is, so that the file need not stay mapped
            return weight.nbytes
        return int(self.library.tile_bytes(self.format_of(weight), weight.n_rows, weight.n_cols))

    def bind(self, weights: Iterable[quant.Weight], progress: Callable[[int, int], None] | None) -> None:
        """Bind all of these, packing those that are to be packed into one piece of memory."""
        fresh = {key(w): w for w in weights if key(w) not in self._bound}
        total = sum(self._tile_bytes(w) for w in fresh.values() if self.packs(w))
        arena = Arena(total + 64 * len(fresh)) if total else None
        if arena:
            self._owners.append(arena)
        done = 0

        def advance(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            if progress:
                progress(done, total)

        for name, weight in fresh.items():
            if self.packs(weight):
                assert arena is not None
                self._bound[name] = self._packed(weight, arena.take(self._tile_bytes(weight)), advance)
            else:
                self._bound[name] = self._in_place(weight)

    def __getitem__(self, weight: quant.Weight) -> abi.Weight:
        return self._bound[key(weight)]

    def vector(self, weight: quant.Weight) -> int:
        """The address of a vector decoded to float32."""
        return self.floats(weight.dequantize().reshape(-1))

    def floats(self, values: F32) -> int:
        """The address of a copy that is kept as long as the store: values may be a view that keeps a file mapped."""
        array = np.array(values, np.float32, order="C")
        self._owners.append(array)
        return address(array)

    def _in_place(self, weight: quant.Weight) -> abi.Weight:
        if _brings_linear(weight):
            return self._foreign(weight)
        raw = weight.raw
        bound = abi.Weight(self.format_of(weight), 0, weight.n_rows, weight.n_cols)
        bound.raw, bound.row_bytes = address(raw), raw.strides[0]
        if bound.format == abi.DECODED:
            bound.decode = decoder_of(self.library, weight.format)
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

    def _packed(self, weight: quant.Weight, tiles: int, advance: Callable[[int], None]) -> abi.Weight:
        format: quant.QuantFormat = weight.format
        if self.format_of(weight) == abi.DECODED:
            return self._copied(weight, tiles, advance)
        if format.name in abi.FORMATS:
            self._pack_rows(weight, tiles, advance)
        else:
            format = quant.F16Format()
            most = self._pack_decoded(weight, tiles, format, advance)
            if not MIN_F16 <= most <= MAX_F16:
                format = quant.BF16Format()
                self._pack_decoded(weight, tiles, format, lambda n_bytes: None)
        bound = abi.Weight(abi.FORMATS[format.name], 0, weight.n_rows, weight.n_cols)
        bound.tiles = tiles
        return bound

    def _copied(self, weight: quant.Weight, place: int, advance: Callable[[int], None]) -> abi.Weight:
        """A weight that its decoder reads, copied piece by piece."""
        row_bytes = weight.format.row_bytes(weight.n_cols)
        bound = abi.Weight(abi.DECODED, 0, weight.n_rows, weight.n_cols)
        bound.raw, bound.row_bytes, bound.decode = place, row_bytes, decoder_of(self.library, weight.format)
        raw, piece_rows = weight.raw, max(1, PIECE_BYTES // row_bytes)
        for start in range(0, weight.n_rows, piece_rows):
            rows = np.ascontiguousarray(raw[start : start + piece_rows])
            ctypes.memmove(place + start * row_bytes, address(rows), rows.nbytes)
            weight.release()
            advance(rows.nbytes)
        self._owners.append(weight.format)
        return bound

    def _pack_rows(self, weight: quant.Weight, tiles: int, advance: Callable[[int], None]) -> None:
        """Pack a weight piece by piece, so that no more than a piece of it is in memory twice."""
        raw, piece_rows = weight.raw, _whole_tiles(PIECE_BYTES // weight.format.row_bytes(weight.n_cols))
        for start in range(0, weight.n_rows, piece_rows):
            tiles += self._pack(raw[start : start + piece_rows], weight.format, weight.n_cols, tiles, advance)
            weight.release()

    def _pack_decoded(
        self, weight: quant.Weight, tiles: int, format: quant.QuantFormat, advance: Callable[[int], None]
    ) -> float:
        """Decode a weight, encode it in ``format`` and pack it panel by panel; the largest magnitude that was seen."""
        raw, panel_rows, most = weight.raw, _whole_tiles(quant.PANEL_VALUES // weight.n_cols), 0.0
        for start in range(0, weight.n_rows, panel_rows):
            values = weight.decode(raw[start : start + panel_rows])
            most = max(most, float(np.abs(values).max()))
            rows = format.quantize(np.ascontiguousarray(values))
            tiles += self._pack(rows, format, weight.n_cols, tiles, advance)
        weight.release()
        return most

    def _pack(
        self, rows: U8, format: quant.QuantFormat, n_cols: int, tiles: int, advance: Callable[[int], None]
    ) -> int:
        """Pack raw rows; the bytes that their tiles take."""
        number = abi.FORMATS[format.name]
        source = abi.Weight(number, 0, len(rows), n_cols)
        source.raw, source.row_bytes = address(rows), rows.strides[0]
        self.library.pack(ctypes.addressof(source), tiles, self.n_threads)
        size = int(self.library.tile_bytes(number, len(rows), n_cols))
        advance(size)
        return size

    def reader(self, weight: quant.Weight) -> RowReader:
        """Single rows of a table: from the tiles of a head that is the same tensor, else from a copy or in place.

        Packed models have a copy in memory, since a mapped file that shrinks ends the process.
        """
        bound = self._bound.get(key(weight))
        tiles = bound if bound is not None and bound.tiles and weight.format.name in abi.FORMATS else None
        return RowReader(self.library, weight, tiles=tiles, copy=self.pack)


def _whole_tiles(n_rows: int) -> int:
    """As many rows, but whole tiles, so that what is packed one after the other lies side by side."""
    return max(1, n_rows // abi.TILE) * abi.TILE


def _copy(weight: quant.Weight) -> U8:
    """A weight's raw rows in anonymous memory, copied piece by piece as they are packed."""
    raw, n_rows = weight.raw, max(1, PIECE_BYTES // weight.format.row_bytes(weight.n_cols))
    flat = Arena(raw.size).array[: raw.size] if raw.size >= HUGE else np.empty(raw.size, np.uint8)
    copy = flat.reshape(raw.shape)
    for start in range(0, len(raw), n_rows):
        copy[start : start + n_rows] = raw[start : start + n_rows]
        weight.release()
    return copy


class RowReader:
    """Single rows of a table as float32: the embedding.

    Args:
        tiles: the table as tiles, which the caller keeps.
        copy: read from a copy of the table, not from the file.
    """

    def __init__(
        self, library: Library, weight: quant.Weight, *, tiles: abi.Weight | None = None, copy: bool = False
    ) -> None:
        self.library, self.weight, self._bound = library, weight, tiles
        if tiles is None and _decodes(library, weight):
            self._raw = _copy(weight) if copy else weight.raw
            number = abi.FORMATS.get(weight.format.name, abi.DECODED)
            self._bound = abi.Weight(number, 0, weight.n_rows, weight.n_cols)
            self._bound.raw, self._bound.row_bytes = address(self._raw), self._raw.strides[0]
            self._bound.decode = decoder_of(library, weight.format)

    def __call__(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> F32:
        """``(n,)`` row numbers, which the caller has checked, to ``(n, n_cols)``."""
        if self._bound is None:
            return self.weight.take(rows)
        out = np.empty((len(rows), self.weight.n_cols), np.float32)
        self.library.take(ctypes.addressof(self._bound), address(rows), len(rows), address(out))
        return out
