"""`check_quant_format` names what an encoder does otherwise than the layout says, and not another fault."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32, F64, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import QuantFormatSuite

LEVELS = (-1.0, -0.7, -0.53, -0.4, -0.28, -0.18, -0.09, 0.0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0)
BORDERS = np.convolve(LEVELS, [0.5, 0.5], "valid")
CUBES = np.linspace(-1, 1, 16) ** 3
CUBE_BORDERS = np.convolve(CUBES, [0.5, 0.5], "valid")
OR_REVERSED = ", or the table is in reverse order, which is the same for one that is symmetric"
HALVES = (Bits(2, 4, 8), Bits(2, 4, 8, 4))
GOOD = Layout(4, 64, Scale("f16", 0), table=LEVELS, codes=HALVES)


class Levels(BlockFormat):
    """16 levels, the largest magnitude of a block in half precision, low nibbles before high ones."""

    name, block_size, type_size, layout = "LEVELS", 64, 34, GOOD
    scaled: ClassVar[float] = 1.0
    dtype: ClassVar[str] = "<f2"
    divides: ClassVar[bool] = True
    moved: ClassVar[float] = 0.0
    kept: ClassVar[float] = 1.0
    borders: ClassVar[F64] = BORDERS
    turn: ClassVar[Any] = staticmethod(lambda codes: codes)

    def codes(self, steps: F32) -> U8:
        return np.searchsorted(self.borders, steps).astype(np.uint8)

    def pack(self, codes: U8) -> U8:
        return codes[:, :32] | codes[:, 32:] << 4

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = np.clip(np.abs(values).max(axis=1, keepdims=True) * self.scaled, 0, 65504).astype(self.dtype)
        steps = values / np.where(scales > 0, scales, 1).astype(np.float32) if self.divides else values
        codes = self.codes(np.clip(steps + np.float32(self.moved), -self.kept, self.kept) if self.divides else steps)
        return np.hstack([scales.view(np.uint8), self.pack(type(self).turn(codes))])


class Affine(BlockFormat):
    """Scale and minimum, which is subtracted."""

    name, block_size, type_size = "AFFINE", 32, 20
    layout = Layout(4, 32, Scale("f16", 0), Scale("f16", 2, factor=-1), codes=(Bits(4, 4, 8), Bits(4, 4, 8, 4)))
    subtracts: ClassVar[bool] = True
    sign: ClassVar[int] = 1
    writes: ClassVar[bool] = True

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        low = np.clip(-values.min(axis=1, keepdims=True), 0, 65504).astype("<f2")
        high = np.maximum(values.max(axis=1, keepdims=True), 0)
        scales = np.clip((high + low.astype(np.float32)) / 15, 0, 65504).astype("<f2")
        least = self.sign * low.astype(np.float32) if self.subtracts else np.float32(0)
        steps = (values + least) / np.where(scales > 0, scales, 1).astype(np.float32)
        codes = np.clip(np.rint(steps), 0, 15).astype(np.uint8)
        written = low if self.writes else np.zeros_like(low)
        return np.hstack([scales.view(np.uint8), written.view(np.uint8), codes[:, :16] | codes[:, 16:] << 4])


class Zeros(BlockFormat):
    """Scale and zero, a code."""

    name, block_size, type_size = "ZEROS", 32, 19
    layout = Layout(4, 32, Scale("f16", 0), zero=Scale("uint", Bits(2, 8)), codes=(Bits(3, 4, 8), Bits(3, 4, 8, 4)))
    adds: ClassVar[bool] = True

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        low, high = np.minimum(values.min(1, keepdims=True), 0), np.maximum(values.max(1, keepdims=True), 0)
        scales = np.clip(high / 15 - low / 15, 2.0**-24, 65504).astype("<f2")
        zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 0, 15)
        steps = np.rint(values / scales.astype(np.float32)) + (zeros if self.adds else 0)
        codes = np.clip(steps, 0, 15).astype(np.uint8)
        return np.hstack([scales.view(np.uint8), zeros.astype(np.uint8), codes[:, :16] | codes[:, 16:] << 4])


def check(format: QuantFormat) -> None:
    suite = type("Suite", (QuantFormatSuite,), {"format": format})()
    suite.test_encoding()
    suite.test_faithfulness()


def of(base: type[QuantFormat], **changes: Any) -> QuantFormat:
    return type("Wrong", (base,), changes)()  # type: ignore[no-any-return]


@pytest.mark.parametrize("base", [Affine, Zeros])
def test_codes_that_are_cut_are_named(base: type[QuantFormat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "rint", np.floor)
    with pytest.raises(AssertionError, match=r"the next (lower|higher) one, not the nearest: it cuts"):
        check(base())


@pytest.mark.parametrize("base", [Levels, Affine, Zeros])
def test_right_ones_pass(base: type[QuantFormat]) -> None:
    check(base())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pack": lambda self, c: c[:, ::2] << 4 | c[:, 1::2]}, "neighbours, the high one first"),
        ({"codes": lambda self, x: np.minimum(Levels.codes(self, x), 14) + np.uint8(1)}, "codes are off by one"),
        ({"scaled": 1 / 7}, "of values have the code 0 or 15, .* the encoder's scale is too small"),
        ({"scaled": 2}, "the codes 0 to 1, 1[34] to 15 are never written"),
        ({"moved": 0.2}, "all codes stand for 0.19\\d times the scale less to the encoder .* a bias"),
        ({"kept": 0.5}, "the codes 0 to 1, 13 to 15 are never written"),
        ({"scaled": 0.3}, "of values have the code 0 or 15, .* the encoder's scale is too small"),
        ({"turn": lambda codes: codes.reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64)}, "transposed, as 8 rows of 8"),
        (
            {"layout": evolve(GOOD, table=[*LEVELS[:3], LEVELS[4], LEVELS[3], *LEVELS[5:]])},
            "the code 3 stands for -0.4 times the scale, not -0.28 and the code 4 stands",
        ),
        ({"layout": evolve(GOOD, table=[*LEVELS[1::2], *LEVELS[::2]])}, "is it another table"),
        (
            {"layout": evolve(GOOD, table=LEVELS[::-1])},
            "its layout and its encoder differ: the table is in reverse order",
        ),
        ({"layout": evolve(GOOD, table=np.negative(LEVELS))}, "values come back with the sign reversed \\("),
        ({"turn": lambda codes: 15 - codes}, "the table is in reverse order"),
        ({"layout": evolve(GOOD, table=CUBES[::-1]), "borders": CUBE_BORDERS}, f"the sign reversed{OR_REVERSED}"),
        (
            {"layout": evolve(GOOD, table=LEVELS[::-1]), "borders": BORDERS[::-1]},
            "of values have the code 15 or 0, .* or it searches among levels that do not ascend",
        ),
        ({"borders": BORDERS[::-1]}, "of values have the code 0 or 15, .* or it searches among levels that do not"),
        (
            {"codes": lambda self, x: np.searchsorted(LEVELS, x).clip(0, 15).astype(np.uint8)},
            "the encoder writes the next higher one, not the nearest: it searches among levels, not among the middles",
        ),
        (
            {"codes": lambda self, x: (np.searchsorted(LEVELS, x) - 1).clip(0, 15).astype(np.uint8)},
            "the next lower one",
        ),
        ({"divides": False}, "the encoder does not divide by the scale that it writes"),
        ({"dtype": ">f2"}, "the scale has its higher byte first to the encoder"),
        ({"layout": evolve(GOOD, scale=Scale("bf16", 0))}, "the scale is f16 to the encoder, bf16 to the layout"),
        ({"layout": evolve(GOOD, table=None)}, "is a table missing"),
        ({"layout": evolve(GOOD, table=None, zero=8)}, "is a table missing"),
    ],
)
def test_mistakes_beside_a_table_are_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(of(Levels, **changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"minimum": Scale("f16", 2)}, "the layout adds a minimum that the encoder subtracts"),
        ({"minimum": None}, "a number in each group that the layout does not add: a minimum"),
        ({"scale": Scale("f16", 2), "minimum": Scale("f16", 0, factor=-1)}, "scale and minimum are exchanged"),
        ({"zero": 1}, "the encoder counts codes from 0, not from 1"),
    ],
)
def test_mistakes_beside_a_minimum_are_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(of(Affine, layout=evolve(Affine.layout, **changes)))


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (of(Affine, subtracts=False), "the encoder rounds before it takes the minimum away, or never does"),
        (of(Affine, sign=-1), "the encoder adds the minimum where it must do the opposite"),
        (
            of(Affine, subtracts=False, writes=False),
            "the encoder rounds before it takes the minimum away, or never does",
        ),
        (of(Affine, writes=False), "the encoder has another minimum in each group than the block"),
        (of(Zeros, adds=False), "the encoder rounds before it adds the zero, or never does"),
    ],
)
def test_a_minimum_or_zero_that_the_encoder_forgets_is_named(wrong: QuantFormat, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(wrong)


class TwoScales(Levels):
    """Scales for 32 values of a block of 64."""

    type_size, layout = 36, Layout(4, 32, Scale("f16", 0), table=LEVELS, codes=(Bits(4, 4, 8), Bits(4, 4, 8, 4)))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        groups = values.reshape(len(values), 2, 32)
        scales = np.clip(np.abs(groups).max(axis=2), 0, 65504).astype("<f2")
        steps = groups / np.where(scales > 0, scales, 1).astype(np.float32)[:, :, None]
        return np.hstack([scales.view(np.uint8), self.pack(self.codes(steps.reshape(len(values), 64)))])


def test_a_group_of_another_size_is_named() -> None:
    check(TwoScales())
    with pytest.raises(AssertionError, match="32 values share a scale to the encoder, 64 to the layout"):
        check(of(TwoScales, layout=evolve(TwoScales.layout, group=64)))


class Divides(Levels):
    def quantize_blocks(self, values: F32) -> U8:
        scales = np.abs(values).max(axis=1, keepdims=True).astype(self.dtype)
        return np.hstack([scales.view(np.uint8), self.pack(self.codes(values / scales))])


def test_a_division_by_the_scale_of_a_block_of_zeros_is_told_with_its_remedy() -> None:
    with pytest.raises(AssertionError, match=r"divide by np.where\(scale > 0, scale, 1\)"):
        check(Divides())


class NoScale(Levels):
    def quantize_blocks(self, values: F32) -> U8:
        rows = super().quantize_blocks(values)
        rows[:, :2] = np.float16(np.nan).tobytes()[0], np.float16(np.nan).tobytes()[1]
        return rows


def test_a_scale_that_is_no_number_is_named_as_the_program_names_it() -> None:
    with pytest.raises(AssertionError, match=r"turns finite values into nan: scales\[0, 0\] is nan"):
        check(NoScale())


@pytest.mark.parametrize("by", [0.05, -0.12, 0.3])
@pytest.mark.parametrize("code", [0, 3, 7, 12, 15])
def test_a_wrong_number_in_a_table(code: int, by: float) -> None:
    """However little it adds to the error: a digit that was mistyped, the level at an end of the range too."""
    table = tuple(level + by * (i == code) for i, level in enumerate(LEVELS))
    with pytest.raises(AssertionError, match=f"to the encoder the code {code} stands for about ") as found:
        check(of(Levels, layout=evolve(GOOD, table=table)))
    near = float(str(found.value).split("stands for about ")[1].split()[0])
    assert abs(near - LEVELS[code]) < 0.01
