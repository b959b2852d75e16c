"""Every kind of tile, packed from codes and scales that anybody may have unpacked."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.forward import NO_PLAN
from sis_core.backends.native.library import Library, address
from sis_core.backends.native.memory import aligned
from sis_core.backends.native.program import Program
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.runner import Runner
from sis_core.backends.native.weights import Store
from sis_core.quant import Weight
from sis_core.testing.kernels.guards import before_a_wall
from sis_core.testing.kernels.weights import QUANTIZED, format_of, random_rows, rounded, taken, weight_of

KINDS = {name: abi.FORMATS[name] for name in QUANTIZED} | abi.TILES_ALONE
ALL_POWERS = {  # other scales than halves: where they are, and all but those that overflow
    "MXFP4": (slice(0, 1), np.arange(250, dtype=np.uint8)),
    "NVFP4": (slice(0, 4), np.arange(128, dtype=np.uint8)),
}
EDGES = (2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 24, 31, 33, 64)  # rows, about where kernels change


def random_unpacked(
    kind: abi.Kind, n_rows: int, n_cols: int, random: np.random.Generator, *, extreme: bool = False
) -> tuple[abi.Unpacked, F32]:
    """Random rows of what tiles of a kind hold, and their values; ``extreme`` ones are the least and the largest."""

    def draw(low: int, high: int, shape: int | tuple[int, ...], dtype: Any = np.int64) -> Any:
        if extreme:
            return random.choice([low, high - 1], shape).astype(dtype)
        return random.integers(low, high, shape, dtype)

    def whole(low: int, high: int) -> F32:
        drawn: F32 = draw(low, high, (n_rows, -(-n_cols // kind.group))).astype(np.float32)
        return drawn

    ternary = kind.codes == abi.CODES["ternary"]
    codes = draw(0, 3 if ternary else 1 << kind.bits, (n_rows, n_cols), np.uint8)
    table = draw(-128, 128, 64, np.int8)
    wide = kind.codes == abi.CODES["unsigned"] and kind.bits == 8
    values: F32 = codes.view(np.int8 if wide else np.uint8).astype(np.float32)
    if kind.codes == abi.CODES["table"]:
        values = table[codes].astype(np.float32)
    if kind.codes == abi.CODES["row_table"]:
        table = draw(-128, 128, (n_rows, 16), np.int8)
        values = np.take_along_axis(table, codes.astype(np.intp), axis=1).astype(np.float32)
    if kind.codes == abi.CODES["signed"]:
        values -= np.float32(1 << kind.bits >> 1)
        codes = values.astype(np.int8).view(np.uint8)
    if ternary:
        values -= np.float32(1)
    if kind.codes == abi.CODES["pairs"]:
        places = random.permuted(np.tile([0, 0, 1, 1], (n_rows, n_cols // 4, 1)), axis=2).reshape(n_rows, n_cols)
        values = (draw(-8, 8, (n_rows, n_cols)) * places).astype(np.float32)
        codes = values.astype(np.int8).view(np.uint8)
    one, n_super = np.float32(1), n_cols // 256
    scales, minima = whole(-128, 128) / np.float32(1024), whole(-128, 128) / np.float32(1024)  # as halves, as bfloats
    if kind.scales == abi.SCALES["byte"]:
        scales, minima = whole(-128, 128), whole(0, 256)
    if kind.scales == abi.SCALES["six"]:
        scales, minima = whole(-32, 32), whole(0, 64)
    if kind.scales == abi.SCALES["nibble"]:
        scales, minima = whole(0, 16), whole(0, 16)
    if kind.scales == abi.SCALES["super"]:
        scales.fill(1)
    supers, super_minima = (draw(-99, 99, (n_rows, n_super)).astype(np.float32) / 1024 for _ in range(2))
    kept = (codes, scales, minima, supers.astype(np.float32), super_minima.astype(np.float32), table)
    made = abi.Unpacked(n_rows, n_cols, *(address(array) for array in kept))
    made.owners = kept
    by_256 = kind.scales >= abi.SCALES["byte"]

    def each_column(numbers: F32, upper: F32) -> F32:
        both = numbers * (np.repeat(upper, 256 // kind.group, 1) if by_256 else one)
        return np.repeat(both, kind.group, 1)[:, :n_cols]  # the last group may have fewer

    values *= each_column(scales, kept[3])
    if kind.codes == abi.CODES["unsigned"]:
        values -= each_column(minima, kept[4])
    return made, values


def some_columns(kind: abi.Kind) -> int:
    """More than a unit of tiles has; where the last group may have fewer columns, it has."""
    return 352 if kind.group > abi.BLOCK and kind.codes != abi.CODES["ternary"] else 256


def packed(library: Library, number: int, rows: abi.Unpacked, allocate: Callable[[int], U8] = aligned) -> abi.Weight:
    """Rows in tiles, which they were not in before."""
    tiles = allocate(library.tile_bytes(number, rows.n_rows, rows.n_cols))
    tiles.fill(0xFF)
    library.pack_unpacked(number, ctypes.addressof(rows), address(tiles), 2)
    bound = abi.Weight(number, 0, rows.n_rows, rows.n_cols)
    bound.tiles = address(tiles)
    bound.owners = (tiles, rows)
    return bound


def linear_of(library: Library, bound: abi.Weight) -> Callable[..., F32]:
    """Rows times these tiles; with ``alone``, each as if there were no others."""
    program = Program(Store(library, 1, pack=False), Rotations(), bound.n_cols)
    program.emit(abi.PREPARE, width=bound.n_cols, flags=abi.FOR_Q8)
    program.emit(abi.LINEAR, dst=abi.OUT, weight=ctypes.addressof(bound))
    compiled, runner = program.finish(bound.n_rows), Runner(library, Rotations(), 2)
    return lambda x, **options: runner.run(compiled, (NO_PLAN,), hidden=x, **options)


def check_end_of_tiles(library: Library) -> None:
    """Of every kind of tile: nothing behind the last one is read, for few rows or many."""
    random, kind = np.random.default_rng(10), abi.Kind()
    for number in KINDS.values():
        library.kind(number, ctypes.addressof(kind))
        n_cols = some_columns(kind)
        rows, _ = random_unpacked(kind, 37, n_cols, random)
        bound = packed(library, number, rows, before_a_wall)
        linear = linear_of(library, bound)
        for n in (1, 3, 8, 12, 16, 20, 70):
            assert np.isfinite(linear(random.standard_normal((n, n_cols)).astype(np.float32))).all()


class Unpacked:
    """What tiles hold, and how large they are."""

    def test_rows_that_were_unpacked(self, backend: NativeBackend) -> None:
        """Of every kind of tile: codes and scales of anybody's, in any number of rows and columns."""
        library, random, kind = backend.library(), np.random.default_rng(6), abi.Kind()
        for name, (n_rows, n_cols) in itertools.product(KINDS, ((37, 768), (16, 256), (1, 288), (5, 320))):
            number = KINDS[name]
            assert library.kind(number, ctypes.addressof(kind)) == 1
            size = library.tile_bytes(number, n_rows, n_cols)
            whole = kind.scales >= abi.SCALES["byte"] or kind.codes == abi.CODES["ternary"]
            assert (size == 0) == (whole and n_cols % 256 != 0), name
            if not size:
                continue
            rows, values = random_unpacked(kind, n_rows, n_cols, random)
            bound = packed(library, number, rows)
            weight = Weight.from_array("w", np.zeros((n_rows, n_cols), np.float32))
            found = taken(library, weight, np.arange(n_rows, dtype=np.int32), ctypes.addressof(bound))
            np.testing.assert_allclose(found, values, rtol=0, atol=2.0**-22 * np.abs(values).max(), err_msg=name)
        assert not any(library.kind(n, ctypes.addressof(kind)) for n in (abi.F32, abi.BF16, abi.DECODED, 99))

    def test_rows_that_were_packed(self, backend: NativeBackend) -> None:
        """Of every format, whole tiles and parts of one, with every scale there is of those that are no halves."""
        library, random, kind = backend.library(), np.random.default_rng(8), abi.Kind()
        for name, (n_rows, n_cols) in itertools.product(QUANTIZED, ((37, 768), (16, 256), (1, 288))):
            number, format = abi.FORMATS[name], format_of(name)
            if n_cols % format.block_size:
                continue
            raw = random_rows(format, n_rows, n_cols, random)
            if name in ALL_POWERS:
                where, powers = ALL_POWERS[name]
                found = raw.reshape(-1, format.type_size)[:, where]
                found[...] = np.resize(powers, found.shape)
            tiles = aligned(library.tile_bytes(number, n_rows, n_cols))
            tiles.fill(0xFF)
            bound = abi.Weight(number, 0, n_rows, n_cols, raw=address(raw), row_bytes=format.row_bytes(n_cols))
            library.pack(ctypes.addressof(bound), address(tiles), 2)
            bound.raw, bound.tiles = 0, address(tiles)
            library.kind(number, ctypes.addressof(kind))
            weight = weight_of(format, raw, n_cols)
            wanted = weight.dequantize()
            nearly = 2.0**-22 * np.abs(wanted).max() if kind.codes == abi.CODES["unsigned"] else 0
            rows = taken(library, weight, np.arange(n_rows, dtype=np.int32), ctypes.addressof(bound))
            np.testing.assert_allclose(rows, wanted, rtol=2.0**-22, atol=nearly, err_msg=name)

    @pytest.mark.parametrize(
        "counts", [EDGES, pytest.param(range(2, 65), marks=pytest.mark.full)], ids=["edges", "all"]
    )
    def test_any_number_of_rows(self, backend: NativeBackend, counts: Sequence[int]) -> None:
        """Of every kind of tile: 1 to 64 rows at once are the rows one by one, bit for bit, and the product."""
        library, random, kind = backend.library(), np.random.default_rng(7), abi.Kind()
        for (name, number), extreme in itertools.product(KINDS.items(), (False, True)):
            library.kind(number, ctypes.addressof(kind))
            n_cols = some_columns(kind)
            rows, values = random_unpacked(kind, 19, n_cols, random, extreme=extreme)
            bound = packed(library, number, rows)
            linear = linear_of(library, bound)
            x = random.standard_normal((64, n_cols)).astype(np.float32)
            if extreme:  # 127 and -127, once rounded: all products of a row of weights have one sign
                x = (np.where(values[0] < 0, -1, 1) * random.choice([-1, 1], (64, 1))).astype(np.float32)
            one_by_one = np.concatenate([linear(row[None]) for row in x])
            wanted = rounded(x).astype(np.float64) @ values.astype(np.float64).T
            assert np.abs(one_by_one - wanted).max() <= 3e-6 * np.abs(wanted).max(), name
            for n in counts:
                assert np.array_equal(linear(x[:n], alone=True), one_by_one[:n]), (name, n)

    def test_nothing_behind_the_last_tile_is_read(self, backend: NativeBackend) -> None:
        """A tile may end where memory does."""
        check_end_of_tiles(backend.library())

    def test_scales_of_zeros(self, backend: NativeBackend) -> None:
        """The smallest scales are slow to multiply by: where they have nothing but zeros they are zero."""
        codes, tiny = np.zeros((16, 64), np.uint8), np.float32(2.0**-127)
        codes[8:, 40] = 3
        table = np.array([0, 1, 2, 3, *([0] * 60)], np.int8)
        kept = (codes, np.full((16, 2), tiny), table)
        rows = abi.Unpacked(16, 64, *(address(array) for array in kept[:2]), table=address(table))
        rows.owners = kept
        bound = packed(backend.library(), abi.FORMATS["MXFP4"], rows)
        tiles = bound.owners[0]
        assert isinstance(tiles, np.ndarray)
        found = tiles[64:128].view("<u2").reshape(2, 16)  # behind the table
        assert not found[0].any()
        assert not found[1, :8].any()
        assert (found[1, 8:] == np.array([tiny]).view("<u4") >> 16).all()

    @pytest.mark.parametrize("name", QUANTIZED)
    def test_tiles_take_no_more_than_the_file(self, backend: NativeBackend, name: str) -> None:
        size = backend.library().tile_bytes(abi.FORMATS[name], 64, 2048)
        assert size <= 1.15 * 64 * format_of(name).row_bytes(2048)
