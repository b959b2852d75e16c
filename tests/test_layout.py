"""Declared layouts: every type of GGML that has one, against its decoder, and what a layout refuses."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, cast

import numpy as np
import pytest
from attrs import evolve

from sis_core import Registry
from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.fields import Bits
from sis_core.layout import ByteTable, Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat, Weight
from sis_core.testing import check_quant_format
from sis_core.transform import Hadamard

REGISTRY = Registry.load()
DECLARED: list[QuantFormat] = [format for format in REGISTRY.records("quant_formats") if format.layout is not None]


def rows_of(format: QuantFormat, n_rows: int, n_cols: int) -> U8:
    return np.random.default_rng(5).integers(0, 256, (n_rows, format.row_bytes(n_cols)), np.uint8)


def test_the_types_of_ggml_without_grids_are_layouts() -> None:
    names = {format.name for format in DECLARED}
    assert names >= {
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ2_0",
        "MXFP4", "NVFP4",
    }  # fmt: skip


@pytest.mark.parametrize("format", DECLARED, ids=repr)
def test_a_layout_gives_what_the_decoder_gives(format: QuantFormat) -> None:
    """Random bytes, NaN and infinite scales among them; to the bit, but for the order of a product of three."""
    n_cols = 3 * format.block_size
    rows = rows_of(format, 50, n_cols)
    layout = format.layout
    assert layout is not None
    unpacked = format.unpack(rows, n_cols)
    layout.check_unpacked(unpacked, 50, n_cols)
    found, wanted = layout.values(unpacked), format.dequantize(rows, n_cols)
    finite = np.isfinite(wanted)
    assert np.array_equal(np.isfinite(found), finite)
    ours, theirs = (np.where(finite, some, 0).astype(np.float64) for some in (found, wanted))
    assert (np.abs(ours - theirs) <= 1e-6 * np.abs(theirs).max(1, keepdims=True)).all()


class Nibbles(BlockFormat):
    """A layout and nothing else."""

    name, block_size, type_size = "NIBBLES", 8, 6
    layout = Layout(4, 4, Scale("uint", Bits(0, 8), factor=0.5), zero=8, codes=Bits(2, 4))


def test_a_format_needs_a_layout_and_nothing_else() -> None:
    rows = np.array([[2, 6, 0x10, 0x32, 0x54, 0x76]], np.uint8)
    values = [[-8, -7, -6, -5, -12, -9, -6, -3]]
    assert Nibbles().dequantize(rows, 8).tolist() == values
    assert Nibbles().dequantize_blocks(rows).tolist() == values


def test_a_format_without_both_says_so() -> None:
    class Nothing(QuantFormat):
        name = "NOTHING"

    with pytest.raises(FormatError, match="NOTHING: has neither a layout nor a decoder"):
        Nothing().dequantize(np.zeros((1, 1), np.uint8), 1)


def test_rows_are_checked() -> None:
    with pytest.raises(FormatError, match=r"decodes uint8 \(n_rows, 6\)"):
        Nibbles().unpack(np.zeros((1, 7), np.uint8), 8)


def test_two_levels_a_minimum_and_a_zero_for_each_group() -> None:
    """Against the formula, in float64."""
    random = np.random.default_rng(0)
    layout = Layout(3, 4, Scale("uint"), Scale("uint", factor=-1))
    codes = random.integers(0, 8, (2, 16), np.uint8)
    s, m = (random.integers(0, 60, (2, 4)).astype(np.float32) for _ in range(2))
    ss, sm = (random.standard_normal((2, n)).astype(np.float32) for n in (2, 1))
    found = layout.values(Unpacked(codes, s, m, ss, sm))
    scale = np.repeat(s.astype(np.float64), 4, 1) * np.repeat(ss, 8, 1)
    wanted = scale * codes + np.repeat(m.astype(np.float64), 4, 1) * sm
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_zeros_of_groups_become_minima() -> None:
    layout = Layout(4, 8, Scale("f16", 0), zero=Scale("f16", 2), codes=Bits(4, 4))
    blocks = np.hstack([np.array([[0.5, 3.25]], "<f2").view(np.uint8), np.array([[0x10, 0x32, 0x54, 0x76]], np.uint8)])
    found = layout.values(layout.unpack_blocks(blocks, 8, 1))
    assert found.tolist() == [[0.5 * (i - 3.25) for i in range(8)]]


def test_a_table_for_each_row() -> None:
    layout = Layout(1, 4, Scale("f32"), table="row")
    one = np.ones((2, 1), np.float32)
    tables = np.array([[1, 2], [3, 4]], np.float32)
    unpacked = Unpacked(np.array([[0, 1, 0, 1], [1, 1, 0, 0]], np.uint8), one, tables=tables)
    layout.check_unpacked(unpacked, 2, 4)
    assert layout.values(unpacked).tolist() == [[1, 2, 1, 2], [4, 4, 3, 3]]


@pytest.mark.parametrize(
    ("table", "exact"),
    [
        ((0, 1, 2, 3), True),
        ((-128, 127, 0, 5), True),
        (tuple(np.arange(16) / 8), True),
        (tuple(0.3 * np.array([0, 1, 2, 3, 4, 6, 8, 12])), True),
        ((-1.0, -0.6961928, 0.33791524, 0.72295684), False),
        ((1000, 1, 2, 0), False),
    ],
)
def test_a_table_of_bytes_is_the_nearest(table: tuple[float, ...], exact: bool) -> None:
    found = ByteTable.of(table)
    errors = np.abs(found.step * found.numbers.astype(np.float64) - table)
    assert errors.max() == pytest.approx(found.error, abs=1e-12)
    assert found.error <= np.abs(table).max() / 254 + 1e-12
    assert (found.error < 1e-9) == exact


def test_how_much_the_rounding_of_a_table_adds() -> None:
    """Against the error of normal values themselves, in levels at their quantiles and in levels that are crowded."""
    even = np.array([NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)]) / 1.863
    for table, low, high in ((even, 0.02, 0.15), ((*even[:-1] / 30, 1.0), 1, 4)):
        made = ByteTable.of(table)
        assert low < made.share < high


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout(9, 32, Scale("f16")), "bits of Layout is 9. Give a whole number from 1 to 8"),
        (lambda: Layout(4, 0, Scale("f16")), "group of Layout is 0. Give a whole number from 1 on"),
        (lambda: Layout(4, 32, Scale("f16"), table=(1, 2, 3)), "a table of 3 numbers .* Give 16"),
        (lambda: Layout(1, 32, Scale("f16"), table=(0, 0)), "all zeros"),
        (lambda: Layout(1, 32, Scale("f16"), table=(0, float("nan"))), "NaN"),
        (lambda: Layout(4, 32, Scale("f16"), table="column"), "the table is 'column'. Give what each code stands for"),
        (lambda: Layout(1, 32, Scale("f16"), table=(0, 1), zero=1), "a table and a zero"),
        (lambda: Layout(4, 32, Scale("f16"), Scale("f16"), zero=Scale("f16")), "a zero for each group and a minimum"),
        (lambda: Layout(4, 32, Scale("f16"), zero=Scale("f16"), two_of_four=True), "no code stands for 0"),
        (lambda: Layout(4, 32, Scale("f16"), codes=Bits(2, 3)), "codes have 4 bits, but .* holds 3"),
        (lambda: Layout(4, 32, Scale("f16"), codes=Bits(2, 4)), r"the scale has no place .* Scale\('f16', at=…\)"),
        (
            lambda: Layout(4, 32, Scale("f16", 0), Scale("uint", Bits(2, 8), times=Scale("f16")), codes=Bits(3, 4)),
            "the minimum of the upper level has no place",
        ),
        (lambda: Scale(cast("Any", "f8")), "'f8' is no kind of number. There are f32, f16"),
        (lambda: Scale("f16", at=cast("Any", "x")), r"at of Scale is 'x'. Give Bits\(at, bits\), or a tuple"),
        (lambda: Scale("f16", at=-2), "at of Scale is -2"),
        (lambda: Scale("f16", at=[]), r"at of Scale is \[\]"),
        (lambda: Scale("f16", factor=float("nan")), "factor of Scale is nan"),
        (lambda: Scale("f16", less=cast("Any", 0.5)), "less of Scale is 0.5"),
        (lambda: Scale("f16", times=cast("Any", "f16")), "times of Scale is 'f16'. Give a Scale, or None"),
        (lambda: Layout(cast("Any", 4.0), 32, Scale("f16")), "bits of Layout is 4.0"),
        (lambda: Layout(True, 32, Scale("f16")), "bits of Layout is True"),
        (lambda: Layout(4, 32, cast("Any", "f16")), r"scale of Layout is 'f16'. Give a Scale, such as Scale\('f16'"),
        (lambda: Layout(4, 32, Scale("f16"), zero=cast("Any", 7.5)), "zero of Layout is 7.5"),
        (lambda: Layout(3, 32, Scale("f16"), zero=99), "the zero is 99, but codes of 3 bits go from 0 to 7"),
        (lambda: Scale("f16", per=cast("Any", "tensor")), "for each 'tensor' is unknown. Give 'row', or of how many"),
        (lambda: Layout(4, 32, Scale("f16"), table=cast("Any", ["a"])), "the table .* is no list of numbers"),
        (lambda: Layout(4, 32, Scale("f16"), table=cast("Any", 4)), "the table 4 is no list of numbers"),
        (lambda: Layout(4, 32, Scale("f16", 0), codes=cast("Any", 2)), "codes of Layout is 2. Give Bits"),
        (lambda: Layout(4, 32, Scale("f16", 0), codes=[Bits(2, 4), cast("Any", 3)]), "codes of Layout is 3. Give Bits"),
        (lambda: Layout(4, 32, Scale("f16"), transform=cast("Any", 32)), "transform of Layout is 32. Give a Transform"),
        (lambda: Layout(4, 32, Scale("f16"), two_of_four=cast("Any", 1)), "two_of_four of Layout is 1"),
        (lambda: Layout(2, 32, Scale("f16"), zero=1, ternary=cast("Any", 1)), "ternary of Layout is 1"),
        (lambda: Layout(2, 32, Scale("f16"), ternary=True), "do not stand for -1, 0 and 1 .* Give bits=2 and zero=1"),
        (lambda: Layout(3, 32, Scale("f16"), zero=1, ternary=True), "do not stand for -1, 0 and 1"),
        (lambda: Layout(2, 32, Scale("f16"), Scale("f16"), zero=1, ternary=True), "do not stand for -1, 0 and 1"),
        (lambda: Scale("uint", 3), "does not say of how many bits"),
        (lambda: Scale("f16", per=0), "per of Scale is 0"),
        (lambda: Scale("f16", times=Scale("f16", times=Scale("f16"))), "three levels"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(make: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        make()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            Layout(4, 32, Scale("f16", 0), codes=Bits(3, 4)),
            "BAD: 32 codes from byte 3 on end at byte 19, but a block has 18",
        ),
        (
            Layout(4, 32, Scale("f16", 17), codes=Bits(2, 4)),
            "1 scale from byte 17 on end at byte 19, .* how many values",
        ),
        (Layout(4, 24, Scale("f16", 0), codes=Bits(2, 4)), "no whole number of groups of 24"),
        (Layout(4, 32, Scale("f16", Bits(0, 8)), codes=Bits(2, 4)), "f16 takes 2 whole bytes"),
        (Layout(4, 32, Scale("f16", 0), codes=[Bits(2, 4)] * 3), "in each of 3 runs"),
        (Layout(4, 32, Scale("f16", 0, per="row"), codes=Bits(2, 4)), "a number for each row lies in no block"),
        (Layout(4, 32, Scale("f16", 1), codes=Bits(2, 4)), "BAD: byte 2 of a block is part of a code and of a scale"),
        (Layout(4, 32, Scale("f16", 16), codes=Bits(2, 4)), "byte 16 .* a code and of a scale"),
        (Layout(4, 32, Scale("f16", 0), codes=Bits(0, 4)), "byte 0 .* a code and of a scale"),
        (
            Layout(4, 16, Scale("f16", 0), codes=Bits(2, 4)),
            "byte 2 .* a code and of a scale. See where the scale and the code begin, and whether a block has 2 scales "
            r"\(one for each 16 values\) and 32 codes$",
        ),
        (
            Layout(4, 32, Scale("f16", 0), codes=[Bits(2, 4, 8), Bits(2, 4, 8)]),
            "byte 2 .* of two codes. See where the codes begin, and whether a block has 32 codes$",
        ),
        (Layout(4, 32, Scale("f16", 0), codes=Bits(2, 4, 2)), "the numbers at .* overlap"),
        (Layout(4, 64, Scale("f16", 0), codes=Bits(2, 4)), "a block of 32 values is no whole number of groups of 64"),
        (Layout(4, 32, Scale("f16", 0), transform=Hadamard(64), codes=Bits(2, 4)), "not whole pieces of Hadamard"),
    ],
)
def test_a_class_whose_blocks_do_not_hold_its_layout_is_refused(layout: Layout, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        type("Bad", (BlockFormat,), {"name": "BAD", "block_size": 32, "type_size": 18, "layout": layout})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"layout": "nf4"}, "BAD: its layout is 'nf4'. Give a Layout, such as"),
        ({"layout": {"bits": 4}}, "BAD: its layout is {'bits': 4}"),
        ({"layout": Layout}, "BAD: its layout is <class"),
        ({"block_size": "32"}, "BAD: its block_size is '32'. Give a whole number from 1 on"),
        ({"type_size": 0}, "BAD: its type_size is 0"),
    ],
)
def test_a_class_with_what_is_no_layout_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        type("Bad", (Nibbles,), {"name": "BAD", **members})


class Unpacks(BlockFormat):
    """An unpack that is right; those below change what it gives."""

    name, block_size, type_size, layout = "UNPACKS", 8, 5, Layout(4, 8, Scale("uint"), table=range(-8, 8))

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        blocks = rows.reshape(-1, 5)
        codes = np.stack([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], axis=2).reshape(len(rows), n_cols)
        return self.spoilt(Unpacked(codes, blocks[:, :1].reshape(len(rows), -1).astype(np.float32)))

    def spoilt(self, found: Unpacked) -> Any:
        return found


def _leaves(found: Unpacked) -> Any:
    raise SystemExit(3)


SPOILT: list[tuple[Callable[[Unpacked], Any], str]] = [
    (lambda u: evolve(u, codes=u.codes + np.uint8(9)), r"unpack gives codes\[\d+, \d+\] = \d+, but with bits = 4"),
    (lambda u: evolve(u, codes=u.codes.view(np.int8) - np.int8(8)), "unpack gives codes as int8 .* counted from 0"),
    (lambda u: evolve(u, codes=u.codes.T), r"unpack gives codes as uint8 \(8, 6\), not uint8 \(6, 8\)"),
    (lambda u: evolve(u, codes=u.codes[:, 1:]), r"unpack gives codes as uint8 \(6, 7\)"),
    (lambda u: evolve(u, codes=u.codes.tolist()), "unpack gives codes as list"),
    (lambda u: evolve(u, scales=u.scales.astype(float)), "unpack gives scales as float64 .* as float32"),
    (lambda u: evolve(u, scales=u.scales.ravel()), r"unpack gives scales as float32 \(6,\), not float32 \(6, 1\)"),
    (lambda u: evolve(u, minima=u.scales[:2]), r"unpack gives minima as float32 \(2, 1\)"),
    (lambda u: None, "unpack gives NoneType, not Unpacked. Return Unpacked"),
    (lambda u: (u.codes, u.scales), "unpack gives tuple, not Unpacked"),
    (lambda u: 1 / 0, "unpack failed: ZeroDivisionError: division by zero. Report it to the author"),
    (_leaves, "unpack failed: SystemExit: 3. Report it to the author"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT)
def test_what_an_unpack_of_its_own_does_wrong_is_told(spoil: Callable[[Unpacked], Any], message: str) -> None:
    """To whoever decodes, of which format and which tensor; never as numpy's own words."""
    rows = np.random.default_rng(1).integers(0, 256, (3, 10), np.uint8)
    assert Unpacks().dequantize(rows, 16).shape == (3, 16)
    wrong: Any = type("Wrong", (Unpacks,), {"name": "WRONG", "spoilt": lambda self, found: spoil(found)})()
    with pytest.raises(FormatError, match=f"(?s)^WRONG: {message}"):
        wrong.dequantize(rows, 16)
    with pytest.raises(FormatError, match=f"(?s)^blk.0.up in WRONG: {message}"):
        Weight.of("blk.0.up", wrong, (3, 16), lambda: rows.reshape(-1)).dequantize()
    with pytest.raises(AssertionError, match=message.partition(" = ")[0].partition(" as ")[0]):
        check_quant_format(wrong)


def test_one_number_may_be_scale_and_minimum() -> None:
    layout = Layout(4, 32, Scale("f16", 0), Scale("f16", 0, factor=-8), codes=Bits(2, 4))
    blocks = np.array([[0, 0x3C, *[0x9] * 16]], np.uint8)
    layout.check(32, 18)
    assert set(layout.values(layout.unpack_blocks(blocks, 32, 1))[0].tolist()) == {1, -8}


ONE = np.ones((2, 1), np.float32)


@pytest.mark.parametrize(
    ("unpacked", "message"),
    [
        (Unpacked(np.zeros((2, 7), np.uint8), ONE), r"codes as uint8 \(2, 7\), not uint8 \(2, 8\)"),
        (Unpacked(np.zeros((2, 8), np.int8), ONE), "codes as int8"),
        (Unpacked(np.full((2, 8), 16, np.uint8), ONE), r"codes\[0, 0\] = 16, but with bits = 4 they are at most 15"),
        (Unpacked(np.zeros((2, 8), np.uint8), ONE.astype(np.float64)), "scales as float64"),
        (Unpacked(np.zeros((2, 8), np.uint8), np.ones((2, 3), np.float32)), r"float32 \(2, 3\), not .* \(2, 2\)"),
        (Unpacked(np.zeros((2, 8), np.uint8), ONE, super_scales=np.ones((2, 2), np.float32)), "no multiple"),
        (Unpacked(np.zeros((2, 8), np.uint8), ONE, super_minima=ONE), "stands alone"),
        (Unpacked(np.zeros((2, 8), np.uint8), ONE, tables=np.ones((2, 16), np.float32)), "tables where"),
    ],
)  # fmt: skip
def test_what_unpack_gives_is_checked(unpacked: Unpacked, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Layout(4, 4, Scale("f16")).check_unpacked(unpacked, 2, 8)


def test_of_four_codes_two_stand_for_something() -> None:
    layout = Layout(4, 4, Scale("f16"), zero=8, two_of_four=True)
    codes = np.array([[8, 1, 8, 9, 8, 8, 8, 2]] * 2, np.uint8)
    layout.check_unpacked(Unpacked(codes, ONE), 2, 8)
    codes[1, 0] = 0
    with pytest.raises(FormatError, match="more than two of four codes"):
        layout.check_unpacked(Unpacked(codes, ONE), 2, 8)


def test_ternary_codes_are_at_most_2() -> None:
    layout = Layout(2, 4, Scale("f16"), zero=1, ternary=True)
    codes = np.array([[0, 1, 2, 2, 1, 0, 0, 1]] * 2, np.uint8)
    layout.check_unpacked(Unpacked(codes, ONE), 2, 8)
    codes[1, 3] = 3
    with pytest.raises(FormatError, match=r"codes\[1, 3\] = 3, but they are ternary"):
        layout.check_unpacked(Unpacked(codes, ONE), 2, 8)


def test_a_transform_is_undone_by_the_decoder() -> None:
    class Turned(BlockFormat):
        name, block_size, type_size = "TURNED", 8, 10
        layout = Layout(
            8, 8, Scale("f16", 0), table=np.arange(256, dtype=np.uint8).view(np.int8), codes=Bits(2, 8),
            transform=Hadamard(4),
        )  # fmt: skip

    stored: F32 = np.array([[4, 0, 0, 0, 1, 1, 1, 1]], np.float32)
    rows = np.hstack([np.ones((1, 1), "<f2").view(np.uint8), stored.astype(np.int8).view(np.uint8)])
    assert Turned().dequantize(rows, 8).tolist() == [[2, 2, 2, 2, 2, 0, 0, 0]]
