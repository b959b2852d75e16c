"""Moving weights into memory of our own, piece by piece.

Between two pieces the file's pages are given back, so that no more than a piece is in memory twice: by unmapping the
file, and where steps still read other parts of it, by telling the system. Ctrl-C is heard there too: a piece that was
interrupted is done again.
"""

from __future__ import annotations

import ctypes
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sis_core import quant
from sis_core.arrays import U8
from sis_core.backends.native import abi
from sis_core.backends.native.declared import Numbers
from sis_core.backends.native.guard import Guard
from sis_core.backends.native.kinds import Kind
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.memory import HUGE, Arena

PIECE_BYTES = 16 << 20
STRETCH = 256  # tiles that are made at once
NEVER = ctypes.c_uint32(0)  # to stop
MAX_F16 = 6e4
MIN_F16 = 1e-3  # a tensor whose largest value is below this would lose its small ones to half precision's denormals


class Packing(ABC):
    """A weight on its way.

    Attributes:
        bound: what programs read: the old place until all of it has arrived, then the new one.
    """

    def __init__(self, library: Library, weight: quant.Weight, bound: abi.Weight, piece_rows: int) -> None:
        self.weight = weight
        self.bound, self._library = bound, library
        self._piece_rows, self._row = max(1, piece_rows), 0

    @property
    def done(self) -> bool:
        return self._row >= self.weight.n_rows

    def find_room(self) -> bool:
        """Have a little more of the new place there before it is written; whether there was more to find."""
        return False

    def advance(self) -> int:
        """Move one more piece; the bytes that it takes in its new place."""
        stop = min(self._row + self._piece_rows, self.weight.n_rows)
        size = self._move_guarded(stop)
        self.weight.release()
        if stop == self.weight.n_rows:
            stop = self._finish(stop)
        self._row = stop
        return size

    def _move_guarded(self, stop: int) -> int:
        rows = self.weight.raw[self._row : stop]
        guard = Guard(self._library, self.weight, rows)
        size = self._move(rows, self._row)
        for its in (guard, self.bound.guard):  # what is read ahead may have hit the old one before
            if its:
                its.check_hit()
        return size

    @abstractmethod
    def _move(self, rows: U8, start: int) -> int:
        """Move rows, the first of which is number ``start``; the bytes they take."""

    @abstractmethod
    def _arrived(self) -> abi.Weight:
        """The weight at its new place."""

    def _finish(self, stop: int) -> int:
        """Let programs read from the new place, once no step is running; the row to go on from."""
        new = self._arrived()
        self._library.replace(ctypes.addressof(self.bound), ctypes.addressof(new))
        self.bound.owners, self.bound.guard = new.owners, None  # the old place may be unmapped from here on
        return stop


class Tiles(Packing):
    """Raw rows of a format that kernels know, into tiles."""

    def __init__(
        self, library: Library, weight: quant.Weight, bound: abi.Weight, place: int, format: quant.QuantFormat,
        n_threads: int, piece_bytes: int | None = None,
    ) -> None:  # fmt: skip
        n_bytes = PIECE_BYTES if piece_bytes is None else piece_bytes
        super().__init__(library, weight, bound, whole_tiles(n_bytes // format.row_bytes(weight.n_cols)))
        self._place, self._format, self._n_threads = place, format, n_threads
        self._made: abi.Place | None = None
        self._states = np.zeros(0, np.uint8)  # of tiles that steps make

    def _move(self, rows: U8, start: int) -> int:
        for first, stop in self._not_made(start, start + len(rows)):
            self._pack(rows[first - start : stop - start], first)
        return int(self._library.tile_bytes(abi.FORMATS[self._format.name], len(rows), self.weight.n_cols))

    def _pack(self, rows: U8, start: int) -> None:
        number, n_cols = abi.FORMATS[self._format.name], self.weight.n_cols
        source = abi.Weight(number, 0, len(rows), n_cols)
        source.raw, source.row_bytes = address(rows), rows.strides[0]
        place = self._place + self._library.tile_bytes(number, start, n_cols)
        self._library.pack(ctypes.addressof(source), place, self._n_threads)

    def _not_made(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Ranges of these rows that are not all in tiles which steps have made."""
        if self._made is None:
            yield start, stop
            return
        for first in range(start, stop, STRETCH * abi.TILE):
            end = min(first + STRETCH * abi.TILE, stop)
            if not (self._states[first // abi.TILE : -(-end // abi.TILE)] == abi.MADE).all():
                yield first, end

    def _arrived(self) -> abi.Weight:
        weight = abi.Weight(abi.FORMATS[self._format.name], 0, self.weight.n_rows, self.weight.n_cols)
        weight.tiles = self._place
        return weight

    def advance(self) -> int:
        if not self.made_by_steps:
            return super().advance()
        self.arrive()
        return 0

    def by_steps(self, saved: ctypes.c_int64, arena: Arena) -> None:
        """Let steps make the tiles of rows that are bound in place, from `keep` on as far as there is memory and, for
        more of it, ``saved`` time."""
        self._states = states = np.zeros(-(-self.weight.n_rows // abi.TILE), np.uint8)
        mapped = in_file(self.weight.raw)
        self._made = abi.Place(
            self._place, address(states), mapped=mapped, stack=len(self.weight.shape) > 2,
            saved=ctypes.addressof(saved), memory=ctypes.addressof(arena.record),
        )  # fmt: skip
        self._made.owners = (states, saved, arena)
        self.bound.place = ctypes.addressof(self._made)

    def keep(self) -> None:
        """Let tiles that steps make from now on stay."""
        assert self._made is not None
        self._made.keep = 1

    @property
    def n_made(self) -> int:
        """How many tiles steps have made."""
        return self._made.n_made if self._made else 0

    @property
    def made_by_steps(self) -> bool:
        return self._made is not None and self.n_made * abi.TILE >= self.weight.n_rows

    def arrive(self) -> None:
        """Finish what steps have made."""
        self.weight.release()
        self._row = self._finish(self.weight.n_rows)


class DeclaredTiles(Packing):
    """Rows of a format that declares its layout, unpacked by Python, into the kind of tile that holds them."""

    def __init__(
        self, library: Library, weight: quant.Weight, bound: abi.Weight, place: int, kind: Kind, n_threads: int
    ) -> None:
        self._panel = whole_tiles(quant.PANEL_VALUES // weight.n_cols)
        super().__init__(library, weight, bound, self._panel * n_threads)
        self._place, self._kind, self._n_threads = place, kind, n_threads

    def _move(self, rows: U8, start: int) -> int:
        firsts = range(0, len(rows), self._panel)
        if len(firsts) == 1:
            return self._pack(rows, start)
        with ThreadPoolExecutor(self._n_threads) as pool:  # numpy's loops run side by side
            return sum(pool.map(lambda i: self._pack(rows[i : i + self._panel], start + i), firsts))

    def _pack(self, rows: U8, start: int) -> int:
        number, n_cols = self._kind.number, self.weight.n_cols
        numbers = Numbers(self.weight, self._kind, rows, start)
        record = numbers.record()
        place = self._place + self._library.tile_bytes(number, start, n_cols)
        self._library.pack_unpacked(number, ctypes.addressof(record), place, 1)
        return int(self._library.tile_bytes(number, len(rows), n_cols))

    def _arrived(self) -> abi.Weight:
        weight = abi.Weight(self._kind.number, 0, self.weight.n_rows, self.weight.n_cols)
        weight.tiles = self._place
        return weight


class DecodedTiles(Tiles):
    """Rows that only Python can decode, into tiles of half precision, or of bfloat16 where half has not the range."""

    def __init__(self, library: Library, weight: quant.Weight, bound: abi.Weight, place: int, n_threads: int) -> None:
        super().__init__(library, weight, bound, place, quant.F16Format(), n_threads, quant.PANEL_VALUES * 2)
        self._most = 0.0

    def _move(self, rows: U8, start: int) -> int:
        values = self.weight.decode(rows, slice(start, start + len(rows)))
        again = self._format.name == "BF16"
        self._most = max(self._most, float(np.abs(values).max()))
        size = super()._move(self._format.quantize(np.ascontiguousarray(values)), start)
        return 0 if again else size

    def _finish(self, stop: int) -> int:
        if self._format.name == "F16" and not MIN_F16 <= self._most <= MAX_F16:
            self._format = quant.BF16Format()
            return 0
        return super()._finish(stop)


class Copy(Packing):
    """Rows as they are: what a decoder reads, and tables of which single rows are read."""

    def __init__(self, library: Library, weight: quant.Weight, bound: abi.Weight, place: int) -> None:
        super().__init__(library, weight, bound, HUGE // weight.format.row_bytes(weight.n_cols))
        self._place, self._decode, self._number = place, bound.decode, bound.format
        self._row_bytes = weight.format.row_bytes(weight.n_cols)
        self._found = 0  # bytes of the place

    def find_room(self) -> bool:
        if not self._found:
            self.weight.release()  # its pages come again piece by piece, not beside all of the new place
        left = min(self.weight.n_rows * self._row_bytes - self._found, HUGE)
        self._library.map_memory(self._place + self._found, left, ctypes.addressof(NEVER))
        self._found += left
        return left > 0

    def _move(self, rows: U8, start: int) -> int:
        rows = np.ascontiguousarray(rows)
        ctypes.memmove(self._place + start * self._row_bytes, address(rows), rows.nbytes)
        return rows.nbytes

    def _arrived(self) -> abi.Weight:
        weight = abi.Weight(self._number, 0, self.weight.n_rows, self.weight.n_cols)
        weight.raw, weight.row_bytes, weight.decode = self._place, self._row_bytes, self._decode
        weight.owners = (self.weight.format,)
        return weight


def mapping_of(rows: U8) -> mmap.mmap | None:
    """The mapping that rows lie in, if they do."""
    owner: Any = rows
    while not isinstance(owner, mmap.mmap) and owner is not None:
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return owner


def in_file(rows: U8) -> bool:
    """Whether rows are pages of a file that is mapped to be read, which may go and come again."""
    mapping = mapping_of(rows)
    return mapping is not None and memoryview(mapping).readonly


def whole_tiles(n_rows: int) -> int:
    """As many rows, but whole tiles, so that what is packed one after the other lies side by side."""
    return max(1, n_rows // abi.TILE) * abi.TILE
