"""Weights as the kernels read them: packed into tiles, or in place.

Formats that the kernels do not know are packed too where they declare their layout, and tiles hold what it says. The
others come in by the first two rungs of the contract: with a C decoder of their own they stay packed as they are and
are decoded while they are used; with Python alone they are decoded once, to half precision, or to bfloat16 where half
precision has not the range.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from sis_core import quant
from sis_core.arrays import F32
from sis_core.backends.native import abi
from sis_core.backends.native.ahead import Ahead
from sis_core.backends.native.declared import TooRoughError
from sis_core.backends.native.gradual import Waiting
from sis_core.backends.native.guard import Guard, InPlace
from sis_core.backends.native.kinds import Kind, kind_for
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.memory import HUGE, Arena, aligned
from sis_core.backends.native.packing import Copy, DeclaredTiles, DecodedTiles, Packing, Tiles
from sis_core.errors import FormatError
from sis_core.source import Progress

log = logging.getLogger(__name__)

SMALL_TABLE = 8 << 20  # bytes of float32

Key = tuple[object, ...]


def key(weight: quant.Weight) -> Key:
    """What makes two views the same bytes, multiplied by the same."""
    sides = ((name, side.axis, side.values.tobytes()) for name, side in weight.side.items())
    return (weight.name, weight.first_row, weight.first_col, weight.shape, id(weight.read), *sides)


def known(weight: quant.Weight) -> int | None:
    """The number of a weight's format, where kernels know its rows and all that its values follow from is in them."""
    return None if weight.side else abi.FORMATS.get(weight.format.name)


def _decodes(weight: quant.Weight) -> bool:
    """Whether native code can decode rows of this weight."""
    return known(weight) is not None or (not weight.side and weight.format.decoder is not None)


def _decoded_nbytes(weight: quant.Weight) -> int:
    return 4 * weight.n_rows * weight.n_cols


class Store:
    """The bound weights of one model: each packed once, however often it is used.

    Attributes:
        waiting: weights that are read in place until they are packed, by steps.
        ahead: what maps their pages, and memory for steps, until the first step.
        in_place: all weights that are read in place.
    """

    def __init__(self, library: Library, n_threads: int, pack: bool, *, gradual: bool = False) -> None:
        self.library, self.n_threads, self.pack, self.gradual = library, n_threads, pack, gradual
        self.waiting, self.in_place = Waiting(n_threads), InPlace(library)
        self.ahead = Ahead(library)
        self._bound: dict[Key, abi.Weight] = {}
        self._vectors: dict[Key, int] = {}
        self._kinds: dict[Key, Kind | str] = {}
        self._owners: list[object] = []

    def format_of(self, weight: quant.Weight) -> int:
        """The kernels' number of a weight's format as it will be bound."""
        if self.fused(weight):
            return abi.FOREIGN
        number = known(weight)
        if number is not None:
            return number
        if kind := self.declared(weight):
            return kind.number
        return abi.F16 if self.only_python(weight) else abi.DECODED

    def fused(self, weight: quant.Weight) -> quant.FusedLinear | None:
        """Rung 3: what the format brings for a weight, unless that would copy it and weights are to stay in place."""
        made = weight.format.native_linear(weight) if len(weight.shape) == 2 and not weight.side else None
        return made if made is not None and (self.pack or not made.nbytes) else None

    def declared(self, weight: quant.Weight) -> Kind | None:
        """The kind of tile for what a weight's format declares, where kernels do not know the format.

        Such tiles are made at load. None where weights are to stay in place and the format has a decoder for that.
        """
        if known(weight) is not None or (_decodes(weight) and not self.pack) or self.fused(weight):
            return None
        found = self._kind(weight)
        return None if isinstance(found, str) else found

    def why_not_declared(self, weight: quant.Weight) -> str:
        """Why `declared` found no kind for a weight that `only_python` can decode, in a clause."""
        return str(self._kind(weight))

    def _kind(self, weight: quant.Weight) -> Kind | str:
        if (name := key(weight)) not in self._kinds:
            self._kinds[name] = kind_for(self.library, weight)
        return self._kinds[name]

    def only_python(self, weight: quant.Weight) -> bool:
        """Rung 1: nothing native can decode this weight or multiply by it."""
        return not (_decodes(weight) or self.fused(weight) or self.declared(weight))

    def packs(self, weight: quant.Weight) -> bool:
        """Whether binding this weight copies it."""
        fused = self.fused(weight)
        return fused.nbytes > 0 if fused else self.pack or not _decodes(weight)

    def table_nbytes(self, table: quant.Weight, head: quant.Weight | None) -> int:
        """Bytes of memory that a table takes for itself: none where it is the head, whose tiles serve both."""
        if not self.pack or (head and key(table) == key(head) and self._has_tiles(head)):
            return 0
        if _decodes(table):
            return table.nbytes
        return _decoded_nbytes(table) if _decoded_nbytes(table) <= SMALL_TABLE else 0

    def _has_tiles(self, weight: quant.Weight) -> bool:
        """Whether binding this weight makes tiles of which single rows can be taken."""
        return self.packs(weight) and known(weight) is not None

    def nbytes(self, weights: Iterable[quant.Weight]) -> int:
        """Bytes of memory that packing these takes."""
        unique = {key(w): w for w in weights}
        fused = sum(made.nbytes for w in unique.values() if (made := self.fused(w)))
        return fused + sum(self._tile_bytes(w) for w in unique.values() if self._takes_place(w))

    def _takes_place(self, weight: quant.Weight) -> bool:
        """Whether a weight is packed by us, into a place of ours."""
        return self.packs(weight) and not self.fused(weight)

    def _tile_bytes(self, weight: quant.Weight) -> int:
        if self.format_of(weight) == abi.DECODED:  # copied as it is, so that the file need not stay mapped
            return weight.nbytes
        return int(self.library.tile_bytes(self.format_of(weight), weight.n_rows, weight.n_cols))

    def bind(self, weights: Iterable[quant.Weight], progress: Progress | None) -> None:
        """Bind all of these. What is to be packed has its place in one piece of memory, and waits or goes there now."""
        fresh = {key(w): w for w in weights if key(w) not in self._bound}
        total = sum(self._tile_bytes(w) for w in fresh.values() if self._takes_place(w))
        arena = Arena(total + 64 * len(fresh)) if total else None
        self._owners.append(arena)
        done = 0

        def advance(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            if progress:
                progress(done, total)

        for name, weight in fresh.items():
            if not self._takes_place(weight):
                self._bound[name] = self._in_place(weight)
                continue
            assert arena is not None
            place = arena.take(self._tile_bytes(weight))
            try:
                self._bound[name] = self._packed(weight, partial(self._to, place, weight), advance, arena)
            except TooRoughError as rough:
                self._bound[name] = self._packed_otherwise(weight, rough, advance)
        self.ahead.file(self.waiting.rows_in_files())

    def __getitem__(self, weight: quant.Weight) -> abi.Weight:
        return self._bound[key(weight)]

    def vector(self, weight: quant.Weight) -> int:
        """The address of a vector decoded to float32."""
        if (name := key(weight)) not in self._vectors:
            self._vectors[name] = self.floats(weight.dequantize().reshape(-1))
        return self._vectors[name]

    def floats(self, values: F32) -> int:
        """The address of a copy that is kept as long as the store: values may be a view that keeps a file mapped."""
        array = np.array(values, np.float32, order="C")
        self._owners.append(array)
        return address(array)

    def _packed(
        self, weight: quant.Weight, way: Callable[[abi.Weight], Packing], advance: Callable[[int], None],
        arena: Arena | None = None,
    ) -> abi.Weight:  # fmt: skip
        """A weight on its ``way`` to memory: there when this returns or, where it can be used before, waiting.

        Args:
            arena: where it will lie, if steps may make its tiles.
        """
        waits = self._waits(weight)
        bound = self._read_in_place(weight) if waits else record(weight)
        packing = way(bound)
        if waits:
            self.waiting.add(packing, arena)
            return bound
        while not packing.done:
            advance(packing.advance())
        return bound

    def _packed_otherwise(
        self, weight: quant.Weight, rough: TooRoughError, advance: Callable[[int], None]
    ) -> abi.Weight:
        """A weight that cannot lie in tiles of the kind that was chosen, in others, which have a place of their own."""
        self._kinds[key(weight)] = rough.instead or rough.what
        how = "packed into tiles with scales in bfloat16" if rough.instead else "decoded to 16 bits"
        log.warning("%s is %s, in more memory than was planned: %s", weight.name, how, rough.what)
        self._owners.append(arena := Arena(self._tile_bytes(weight)))
        return self._packed(weight, partial(self._to, arena.address, weight), advance, arena)

    def _waits(self, weight: quant.Weight) -> bool:
        """Whether a weight can be used before it is packed, and may wait for that."""
        return self.gradual and _decodes(weight) and not self.declared(weight)

    def _to(self, place: int, weight: quant.Weight, bound: abi.Weight) -> Packing:
        """The way of a weight to a place in memory."""
        if kind := self.declared(weight):
            return DeclaredTiles(self.library, weight, bound, place, kind, self.n_threads)
        if self.only_python(weight):
            return DecodedTiles(self.library, weight, bound, place, self.n_threads)
        if bound.format == abi.DECODED:
            return Copy(self.library, weight, bound, place)
        return Tiles(self.library, weight, bound, place, weight.format, self.n_threads)

    def _in_place(self, weight: quant.Weight) -> abi.Weight:
        fused = self.fused(weight)
        if fused is None:
            return self._read_in_place(weight)
        bound = foreign(self.library, weight, fused)
        self.in_place.add(bound)
        return bound

    def _read_in_place(self, weight: quant.Weight) -> abi.Weight:
        bound = in_place(self.library, weight)
        self.in_place.add(bound)
        return bound

    def table(self, weight: quant.Weight) -> int | None:
        """The address of a table whose rows are taken one by one, as of an embedding; None where only Python can.

        It is the head where that is the same tensor, else a copy or in place. Packed models have a copy in memory,
        since a mapped file that shrinks ends the process; of a format that only Python decodes, the values, if they
        are few: Python's 20 to 30 µs for a row are felt where a token takes a hundred.
        """
        head = self._bound.get(key(weight))
        if head is not None and self._has_tiles(weight):
            return ctypes.addressof(head)
        if not _decodes(weight):
            return self._decoded_table(weight) if self.table_nbytes(weight, None) else None
        if self.pack:
            memory = Arena(weight.nbytes).array if weight.nbytes >= HUGE else aligned(weight.nbytes)
            self._owners.append(memory)
            bound = self._packed(
                weight, lambda old: Copy(self.library, weight, old, address(memory)), lambda n_bytes: None
            )
        else:
            bound = self._read_in_place(weight)
        self._owners.append(bound)
        return ctypes.addressof(bound)

    def _decoded_table(self, weight: quant.Weight) -> int:
        bound = abi.Weight(abi.F32, 0, weight.n_rows, weight.n_cols)
        bound.raw, bound.row_bytes = self.floats(weight.dequantize()), 4 * weight.n_cols
        weight.release()
        self._owners.append(bound)
        return ctypes.addressof(bound)


class Sketch(Store):
    """A store that binds nothing, to find out whether a program can be made. Its addresses lead nowhere."""

    def __getitem__(self, weight: quant.Weight) -> abi.Weight:
        return abi.Weight(self.format_of(weight), 0, weight.n_rows, weight.n_cols)

    def vector(self, weight: quant.Weight) -> int:
        return 0


def record(weight: quant.Weight) -> abi.Weight:
    """A weight that has no place yet; the format is DECODED where kernels do not know it."""
    number = known(weight)
    bound = abi.Weight(abi.DECODED if number is None else number, 0, weight.n_rows, weight.n_cols)
    if bound.format == abi.DECODED:
        bound.decode = weight.format.decoder
    return bound


def in_place(library: Library, weight: quant.Weight) -> abi.Weight:
    """A weight as it lies in its file; see `record`."""
    bound, raw = record(weight), weight.raw
    bound.raw, bound.row_bytes, bound.owners = address(raw), raw.strides[0], (raw, weight.format)
    bound.guard = Guard(library, weight, raw)
    return bound


def foreign(library: Library, weight: quant.Weight, fused: quant.FusedLinear) -> abi.Weight:
    """A weight that multiplies with its format's own kernel; FormatError where that was made for another ABI."""
    guard = Guard(library, weight, weight.raw)
    made = fused.bind()
    guard.check_hit()
    found = abi.LinearObject.from_address(made)
    if found.abi != abi.ABI or not 0 < found.parts < 1 << 31 or not found.run:
        raise FormatError(
            f"made a linear for ABI {found.abi} in {found.parts} parts; this sis-core speaks ABI {abi.ABI}",
            where=f"format {weight.format.name}",
            fix="install versions of the two that belong together",
        )
    if bool(found.prepare) != bool(found.prepared_bytes):
        raise FormatError(
            "made a linear with one of prepare and prepared_bytes, not both",
            where=f"format {weight.format.name}",
            fix="report it to the author of the format",
        )
    bound = abi.Weight(abi.FOREIGN, 0, weight.n_rows, weight.n_cols)
    bound.linear, bound.owners = made, (fused, weight.format)
    if fused.nbytes:
        weight.release()
    else:
        bound.guard = guard
    return bound
