"""Declared layouts in tiles: products against float64, what they take, what is not packed and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core import Registry
from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.forward import NO_PLAN
from sis_core.backends.native.program import Program
from sis_core.block import Dense
from sis_core.errors import FormatError
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat, Weight
from sis_core.sides import Side
from sis_core.testing.kernels.weights import taken
from sis_core.transform import Hadamard, PerColumn

BACKEND = next(
    backend
    for backend in Registry.load().records("backends")
    if isinstance(backend, NativeBackend) and backend.idle_reason() is None
)
OPTIONS = BackendOptions(n_threads=1)
E2M3 = [
    sign * (m / 8 if e == 0 else (1 + m / 8) * 2 ** (e - 1)) for sign in (1, -1) for e in range(4) for m in range(8)
]
ODD = tuple((np.arange(16) - 7.5) ** 3 / 7.5**3)
HALVES = Bits(4, 4)
NIBBLES = Layout(4, 32, Scale("f16", 0), zero=8, codes=HALVES)


def blocks(name: str, layout: Layout, block_size: int, type_size: int) -> QuantFormat:
    body = {"name": name, "layout": layout, "block_size": block_size, "type_size": type_size}
    return type(name, (BlockFormat,), body)()  # type: ignore[no-any-return]


class Renamed(QuantFormat):
    """A format under a name that kernels do not know, so that its layout is all they have."""

    def __init__(self, name: str) -> None:
        self.inner: QuantFormat = Registry.load().get("quant_formats", name)
        same = {part: getattr(self.inner, part) for part in ("block_size", "type_size", "layout")}
        self.__dict__.update(name=f"NOT_{name}", **same)

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return self.inner.dequantize(rows, n_cols)

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        return self.inner.unpack(rows, n_cols)


class Rows(QuantFormat):
    """Codes of a byte each behind a scale and whatever else a row has for itself."""

    name, block_size = "ROWS", 1

    def __init__(self, layout: Layout, head: int = 4) -> None:
        self.__dict__["layout"], self.head = layout, head

    def row_bytes(self, n_cols: int) -> int:
        return self.head + n_cols

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        assert self.layout is not None
        numbers = np.ascontiguousarray(rows[:, : self.head]).view("<f4")
        codes = rows[:, self.head :] % np.uint8(min(255, (1 << self.layout.bits) - (self.layout.zero == 1)))
        return Unpacked(codes, numbers[:, :1], tables=numbers[:, 1:] if self.layout.table == "row" else None)


def rows_of(format: QuantFormat, n_rows: int, n_cols: int, seed: int = 0) -> U8:
    """Random bytes, whose floats are ordinary numbers."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (n_rows, format.row_bytes(n_cols)), np.uint8)
    if isinstance(format, Rows):
        numbers = random.uniform(0.01, 0.02, (n_rows, format.head // 4))
        numbers[:, 1:] = random.uniform(0.5, 2, (n_rows, 1)) * ODD[: numbers.shape[1] - 1]  # tables
        rows[:, : format.head] = numbers.astype("<f4").view(np.uint8)
        return rows
    layout = format.layout
    assert layout is not None
    view = rows.reshape(-1, format.type_size)
    for scale in (
        layout.scale,
        layout.scale.times,
        layout.minimum,
        layout.minimum and layout.minimum.times,
        layout.zero,
    ):
        if not isinstance(scale, Scale) or scale.kind in ("uint", "int"):
            continue
        count = format.block_size // (scale.per if isinstance(scale.per, int) else layout.group)
        numbers = random.uniform(0.5, 2, (len(view), count))
        bf16 = (numbers.astype("<f4").view("<u4") >> 16).astype("<u2")
        raw = {"f16": numbers.astype("<f2"), "f32": numbers.astype("<f4"), "bf16": bf16}.get(scale.kind)
        raw = np.full(numbers.shape, {"e8m0": 0x78}.get(scale.kind, 0x38), np.uint8) if raw is None else raw
        at = scale.runs[0].at if scale.runs else format.type_size - raw.itemsize * count
        view[:, at : at + raw.itemsize * count] = raw.view(np.uint8)
    return rows


class Pairs(Rows):
    """Two of every four codes stand for something."""

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        unpacked = super().unpack(rows, n_cols)
        fours = unpacked.codes.reshape(-1, 4)
        np.put_along_axis(fours, fours.argsort(1)[:, :2], 8, axis=1)
        return unpacked


FORMATS: dict[str, tuple[QuantFormat, float]] = {  # with bits a weight in tiles
    "table": (blocks("table", Layout(4, 64, Scale("f16", 0), table=ODD, codes=HALVES), 64, 36), 4.25),
    "e8m0": (blocks("e8m0", Layout(4, 32, Scale("e8m0", 0), table=range(-8, 8), codes=HALVES), 32, 20), 4.5),
    "signed": (blocks("signed", Layout(4, 32, Scale("f16", 0), zero=8, codes=HALVES), 32, 20), 4.5),
    "another zero": (blocks("another", Layout(4, 32, Scale("f16", 0), zero=5, codes=HALVES), 32, 20), 4.5),
    "minimum": (blocks("minimum", Layout(4, 64, Scale("f16", 0), Scale("f16", 2), codes=HALVES), 64, 36), 4.5),
    "zeros": (blocks("zeros", Layout(4, 64, Scale("f16", 0), zero=Scale("f16", 2), codes=HALVES), 64, 36), 4.5),
    "groups of 128": (blocks("g128", Layout(4, 128, Scale("f16", 0), zero=8, codes=HALVES), 128, 68), 4.125),
    "zeros of 128": (
        blocks("z128", Layout(4, 128, Scale("f16", 0), zero=Scale("f16", 2), codes=HALVES), 128, 68), 4.25,
    ),
    "3 bits": (blocks("three", Layout(3, 64, Scale("f16", 0), zero=4, codes=Bits(2, 3)), 64, 26), 3.5),
    "3 bits and a minimum": (
        blocks("min3", Layout(3, 64, Scale("f16", 0), Scale("f16", 2), codes=Bits(4, 3)), 64, 28), 3.5,
    ),
    "2 bits": (blocks("q2", Layout(2, 64, Scale("f16", 0), zero=2, codes=Bits(2, 2)), 64, 18), 2.25),
    "2 bits and zeros": (
        blocks("min2", Layout(2, 64, Scale("f16", 0), zero=Scale("f16", 2), codes=Bits(4, 2)), 64, 20), 3,
    ),
    "a bit": (blocks("one", Layout(1, 64, Scale("f16", 0), table=(-1, 1), codes=Bits(2, 1)), 64, 10), 1.25),
    "5 bits": (blocks("five", Layout(5, 32, Scale("f16", 0), zero=16, codes=Bits(2, 5)), 32, 22), 5.5),
    "6 bits in a table": (blocks("six", Layout(6, 32, Scale("e8m0", 0), table=E2M3, codes=Bits(1, 6)), 32, 25), 6.5),
    "6 bits, halves": (blocks("six2", Layout(6, 32, Scale("f16", 0), table=E2M3, codes=Bits(2, 6)), 32, 26), 6.5),
    "6 bits and a minimum": (
        blocks("min6", Layout(6, 64, Scale("bf16", 0), Scale("bf16", 2), codes=Bits(4, 6)), 64, 52), 7,
    ),
    "8 bits and a minimum": (
        blocks("min8", Layout(8, 64, Scale("f16", 0), Scale("f16", 2), codes=Bits(4, 8)), 64, 68), 9,
    ),
    "8 bits from zero": (blocks("from0", Layout(8, 64, Scale("f16", 0), codes=Bits(2, 8)), 64, 66), 9),
    "7 bits and zeros": (
        blocks("z7", Layout(7, 64, Scale("f16", 0), zero=Scale("f16", 2), codes=Bits(4, 7)), 64, 60), 9,
    ),
    "a bit of 128": (blocks("one2", Layout(1, 128, Scale("bf16", 0), table=(-1, 1), codes=Bits(2, 1)), 128, 18), 1.125),
    "2 bits of 128": (blocks("q2_128", Layout(2, 128, Scale("e8m0", 0), zero=2, codes=Bits(1, 2)), 128, 33), 2.125),
    "2 bits and zeros, narrow": (
        blocks("mlx2", Layout(2, 64, Scale("bf16", 0), Scale("bf16", 2), codes=Bits(4, 2)), 64, 20), 2.5,
    ),
    "3 bits of 16": (
        blocks(
            "u3_16",
            Layout(3, 16, Scale("uint", Bits(2, 8), times=Scale("f16", 0, per=256)), zero=4, codes=Bits(18, 3)),
            256, 114,
        ),
        4,
    ),
    "4 bits of 16": (blocks("i4_16", Layout(4, 16, Scale("f16", 0), zero=8, codes=Bits(2, 4)), 16, 10), 5),
    "groups of 16": (blocks("g16", Layout(4, 16, Scale("ue4m3", 0), table=range(-8, 8), codes=Bits(4, 4)), 64, 36), 5),
    "two levels": (
        blocks(
            "two",
            Layout(
                4, 32, Scale("uint", Bits(8, 6), times=Scale("f16", 0, per=256)),
                Scale("uint", Bits(16, 6), factor=-1, times=Scale("f16", 2, per=256)), codes=Bits(24, 4),
            ),
            256, 152,
        ),
        4.625,
    ),
    "two levels, minimum added": (
        blocks(
            "added",
            Layout(
                4, 32, Scale("uint", Bits(8, 6), times=Scale("f16", 0, per=256)),
                Scale("uint", Bits(16, 6), times=Scale("f16", 2, per=256)), codes=Bits(24, 4),
            ),
            256, 152,
        ),
        4.625,
    ),
    "three bits, two levels": (
        blocks(
            "three",
            Layout(3, 16, Scale("int", Bits(2, 8), times=Scale("f16", 0, per=256)), zero=4, codes=Bits(18, 3)),
            256, 114,
        ),
        3.625,
    ),
    "two levels of floats": (
        blocks(
            "floats", Layout(4, 32, Scale("ue4m3", 8, times=Scale("f16", 0, per=256)), zero=8, codes=Bits(24, 4)),
            256, 152,
        ),
        4.5,
    ),
    "digits in base 3": (Renamed("TQ1_0"), 1.75),
    "ternary rows": (Rows(Layout(2, 32, Scale("f32", per="row"), zero=1)), 2.0625),
    "two of four": (Pairs(Layout(4, 32, Scale("f32", per="row"), zero=8, two_of_four=True)), 3.5),
    "a table for each row": (Rows(Layout(4, 32, Scale("f32", per="row"), table="row"), 4 + 64), 4.125 + 16 * 8 / 512),
}  # fmt: skip


def weight_of(format: QuantFormat, n_rows: int, n_cols: int, seed: int = 0) -> Weight:
    data = rows_of(format, n_rows, n_cols, seed).reshape(-1)
    return Weight.of("w", format, (n_rows, n_cols), lambda: data)


def check_product(weight: Weight, tolerance: float = 0.012, options: BackendOptions = OPTIONS) -> None:
    """Rounding activations to 8 bits costs under a hundredth of the result."""
    linear = BACKEND.linear(weight, options)
    assert linear is not None
    x = np.random.default_rng(1).standard_normal((5, weight.n_cols)).astype(np.float32)
    wanted = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    found = linear(x)
    assert np.sqrt(((found - wanted) ** 2).mean()) < tolerance * np.sqrt((wanted**2).mean())


@pytest.mark.parametrize("name", FORMATS)
def test_a_declared_layout_is_multiplied_in_tiles(name: str) -> None:
    format, bits = FORMATS[name]
    weight = weight_of(format, 37, 512)
    handling = BACKEND.handling(weight, OPTIONS)
    assert handling is not None
    to_half = r", its scales rounded to half precision by 0\.0\d%"
    wanted = {
        "table": rf", its table rounded by up to 0\.2% of its largest number{to_half}",
        "ternary rows": to_half,
        "two of four": to_half,
        "a table for each row": rf", each row's table rounded to 8 bits by 0\.0\d+ of its codes' own error{to_half}",
        "3 bits of 16": to_half,
        "7 bits and zeros": r"; they take 1\.20 times its bytes in the file",
    }
    assert re.fullmatch(f"packed into tiles as its layout says{wanted.get(name, '')}", handling.way)
    head = 64 * 3 * 8 / (48 * 512)  # of a tile with a table
    assert handling.nbytes * 8 / (48 * 512) <= bits + head + 1e-9
    check_product(weight)


class Digits(QuantFormat):
    """A scale, and five digits of base 3 in a byte, the lowest first."""

    name, block_size = "DIGITS", 1
    layout = Layout(2, 32, Scale("f32", per="row"), zero=1, ternary=True)

    def row_bytes(self, n_cols: int) -> int:
        return 4 + -(-n_cols // 5)

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        codes = rows[:, 4:, None] // np.array([1, 3, 9, 27, 81], np.uint8) % 3
        scales = np.full((len(rows), 1), 0.25, np.float32)
        return Unpacked(np.ascontiguousarray(codes.reshape(len(rows), -1)[:, :n_cols]), scales)


class TwoBits(Rows):
    """The same in a byte each, which is no less than two bits."""

    def __init__(self) -> None:
        super().__init__(Digits.layout)

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        return Unpacked(rows[:, 4:] % 3, np.full((len(rows), 1), 0.25, np.float32))


@pytest.mark.parametrize("n_cols", [512, 768, 288])
def test_ternary_codes_keep_their_bits(n_cols: int) -> None:
    """As digits of base 3 where the file has them so, and rows are whole units; exactly."""
    random = np.random.default_rng(3)
    x: F32 = random.integers(-127, 128, (4, n_cols)).astype(np.float32)
    x[:, ::32] = 127  # so that 8 bits hold them
    for format in (Digits(), TwoBits()):
        data = random.integers(0, 243, (37, format.row_bytes(n_cols)), np.uint8).reshape(-1)
        weight = Weight.of("w", format, (37, n_cols), lambda data=data: data)  # type: ignore[misc]
        handling = BACKEND.handling(weight, OPTIONS)
        assert handling is not None
        bits = 1.75 if isinstance(format, Digits) and n_cols % 256 == 0 else 2.0625
        assert bits <= handling.nbytes * 8 / (48 * n_cols) <= (bits + 0.1 if n_cols % 256 == 0 else 2.7)
        linear = BACKEND.linear(weight, OPTIONS)
        assert linear is not None
        assert np.array_equal(linear(x), x @ weight.dequantize().T)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_rows_that_come_in_several_pieces(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.quant.PANEL_VALUES", 16 * 512)
    check_product(weight_of(FORMATS["zeros"][0], 45, 512), options=BackendOptions(n_threads=n_threads))


@pytest.mark.parametrize(
    ("name", "n_cols"),
    [("signed", 32), ("signed", 288), ("table", 64), ("zeros", 320), ("zeros of 128", 128), ("ternary rows", 1280)],
)
def test_rows_that_are_not_whole_units(name: str, n_cols: int) -> None:
    check_product(weight_of(FORMATS[name][0], 17, n_cols))


def test_sides_are_in_the_scales() -> None:
    weight = weight_of(FORMATS["minimum"][0], 24, 256)
    random = np.random.default_rng(2)
    sides = {
        "t": Side(np.array([0.25], np.float32), "tensor"),
        "r": Side(random.uniform(0.5, 2, 24).astype(np.float32), "row"),
    }
    weight = evolve(weight, side=sides)
    handling = BACKEND.handling(weight, OPTIONS)
    assert handling is not None
    assert re.fullmatch(r"packed into tiles as its layout says, its scales rounded to half .* by 0\.0\d%", handling.way)
    check_product(weight)
    check_product(weight.rows(3, 21))
    column = evolve(weight, side={"c": Side(random.uniform(0.5, 2, 256).astype(np.float32), "column")})
    handling = BACKEND.handling(column, OPTIONS)
    assert handling is not None
    why = "no PerColumn in its layout names the side 'c', which multiplies columns"
    assert handling.way == f"decoded at load to 16 bits: {why}"
    check_product(column)


class Turned(BlockFormat):
    name, block_size, type_size = "TURNED", 64, 36
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(4, 4), transform=Hadamard(32))


class Columns(BlockFormat):
    name, block_size, type_size = "COLUMNS", 64, 36
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(4, 4), transform=PerColumn("c"))


@pytest.mark.parametrize("format", [Turned(), Columns()], ids=repr)
def test_activations_are_transformed(format: QuantFormat) -> None:
    weight = weight_of(format, 37, 256)
    said = []
    for sided in (weight, evolve(weight, side={"c": Side(np.linspace(0.2, 3, 256, dtype=np.float32), "column")})):
        handling = BACKEND.handling(sided, OPTIONS)
        assert handling is not None
        said.append(handling.way)
        check_product(sided)
    packed = "packed into tiles as its layout says"
    if format.name == "TURNED":
        first = "its input is turned by Hadamard(32) first, which takes 5 additions a value"
        assert said[0] == f"{packed}; {first}"
        assert said[1].startswith("decoded at load to 16 bits: no PerColumn")
    else:
        assert said == [packed, f"{packed}; its input is multiplied by a number for each column first"]


def test_matrices_of_one_input_may_have_transforms_of_their_own() -> None:
    """In a network: one op with matrices as they are, turned, and with columns of two kinds."""
    random = np.random.default_rng(8)
    sides = [{"c": Side(random.uniform(0.5, 2, 256).astype(np.float32), "column")} for _ in range(2)]
    plain, turned, columns = blocks("plain", NIBBLES, 64, 36), Turned(), Columns()
    made = [(plain, {}), (turned, {}), (columns, sides[0]), (columns, sides[1]), (columns, sides[0]), (turned, {})]
    weights = [evolve(weight_of(format, 48, 256, i), side=side) for i, (format, side) in enumerate(made)]
    store = BACKEND._store(OPTIONS)
    store.bind(weights, None)
    runner = BACKEND._runner(OPTIONS)
    program = Program(store, runner.rotations, 256)
    program.linears(0, 0, [(Dense(weight), abi.OUT, 48 * i, False) for i, weight in enumerate(weights)])
    compiled = program.finish(48 * len(weights))
    x = random.standard_normal((7, 256)).astype(np.float32)
    found = runner.run(compiled, (NO_PLAN,), hidden=x)
    wanted = np.hstack([x.astype(np.float64) @ weight.dequantize().astype(np.float64).T for weight in weights])
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.012 * np.sqrt((wanted**2).mean())
    kinds = [op.kind for op in program._ops]
    assert (kinds.count(abi.HADAMARD), kinds.count(abi.MULTIPLY), kinds.count(abi.PREPARE)) == (1, 2, 4)


def test_rows_of_a_small_table_are_taken_natively_as_they_are() -> None:
    """Of a layout, with sides and turned: the very values. A large table would take too much memory: it is Python's."""
    side = {"r": Side(np.linspace(0.5, 2, 40, dtype=np.float32), "row")}
    for weight in (weight_of(FORMATS["table"][0], 40, 256), evolve(weight_of(Turned(), 40, 256), side=side)):
        store = BACKEND._store(OPTIONS)
        assert store.table_nbytes(weight, None) == 40 * 256 * 4
        rows = np.array([39, 0, 17, 17], np.int32)
        found = taken(BACKEND.library(), weight, rows, store.table(weight))
        np.testing.assert_array_equal(found, weight.take(rows))
    large = evolve(weight, shape=(8 << 10, 512))
    assert (store.table(large), store.table_nbytes(large, None)) == (None, 0)
    unpacked = BACKEND._store(evolve(OPTIONS, pack=False))
    assert (unpacked.table(weight), unpacked.table_nbytes(weight, None)) == (None, 0)


def way(weight: Weight) -> str:
    handling = BACKEND.handling(weight, OPTIONS)
    assert handling is not None
    return handling.way


def test_what_no_tile_holds_is_decoded_at_load_for_a_reason() -> None:
    table = Layout(4, 32, Scale("f16", 0), Scale("f16", 2), table=ODD, codes=HALVES)
    small = Layout(4, 8, Scale("f16", Bits(0, 16)), zero=8, codes=Bits(8, 4))
    for format, why in (
        (blocks("both", table, 32, 20), "no tile holds a table with a minimum"),
        (
            blocks("small", small, 32, 24),
            "no tile has scales for 8 of 256 columns; such codes .* multiples of 16 or 32",
        ),
    ):
        weight = weight_of(format, 16, 256)
        assert re.fullmatch(f"decoded at load to 16 bits: {why}", way(weight))
        check_product(weight)


class Wrong(BlockFormat):
    name, block_size, type_size = "WRONG", 32, 34
    layout = Layout(8, 32, Scale("f16", 0), zero=128, codes=Bits(2, 8))  # of which no tile has bfloats
    fault: Any = None

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        return self.fault(super().unpack(rows, n_cols))  # type: ignore[no-any-return]


def shorter(unpacked: Unpacked) -> Unpacked:
    return evolve(unpacked, codes=unpacked.codes[1:])


def larger(unpacked: Unpacked) -> Unpacked:
    return evolve(unpacked, scales=unpacked.scales * np.float32(1e6))


def smaller(unpacked: Unpacked) -> Unpacked:
    return evolve(unpacked, scales=unpacked.scales * np.float32(1e-9))


def no_number(unpacked: Unpacked) -> Unpacked:
    scales = unpacked.scales.copy()
    scales[3, 1] = np.nan
    return evolve(unpacked, scales=scales)


def fails(unpacked: Unpacked) -> Unpacked:
    raise ZeroDivisionError


def leaves(unpacked: Unpacked) -> Unpacked:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (shorter, "w in WRONG: unpack gives codes as"),
        (larger, "half precision cannot hold"),
        (smaller, "half precision cannot hold"),
        (no_number, r"w in WRONG: scales\[3, 1\] is nan. The file is damaged"),
        (fails, "w in WRONG: unpack failed: ZeroDivisionError"),
        (leaves, "w in WRONG: unpack failed: SystemExit: 3"),
    ],
)
def test_what_unpack_may_not_give_is_refused(fault: Any, message: str) -> None:
    format = type("Wrong", (Wrong,), {"fault": staticmethod(fault)})()
    with pytest.raises(FormatError, match=message):
        BACKEND.linear(weight_of(format, 16, 64), OPTIONS)


def test_a_matrix_in_a_layout_is_nearer_than_any_rounding() -> None:
    """With activations that 8 bits hold exactly, what is left is the rounding of scales to half precision."""
    random = np.random.default_rng(4)
    x: F32 = random.integers(-127, 128, (3, 512)).astype(np.float32)
    x[:, ::32] = 127
    for name in ("signed", "minimum", "two levels", "e8m0", "5 bits"):
        weight = weight_of(FORMATS[name][0], 33, 512)
        linear = BACKEND.linear(weight, OPTIONS)
        assert linear is not None
        wanted = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
        error = np.abs(linear(x) - wanted).max() / np.abs(wanted).max()
        assert error < 2e-3, (name, error)
