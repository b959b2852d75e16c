"""An author's mistakes in layouts of two levels, of zeros, of rows and with a transform: each is named by the kit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import QuantFormatSuite, check_quant_format
from sis_core.transform import Hadamard


def nibbles(codes: F32) -> U8:
    """Neighbours in a byte, the first one low."""
    numbers = np.clip(codes, 0, 15).astype(np.uint8)
    return numbers[:, ::2] | numbers[:, 1::2] << 4


def halves(values: F32) -> Any:
    return np.clip(values, -65504, 65504).astype("<f2")


def divisors(scales: Any) -> F32:
    return np.where(scales > 0, scales, 1).astype(np.float32)


class TwoLevels(BlockFormat):
    """Eight groups of 32: a whole scale of 6 bits for each, times a half."""

    name, block_size, type_size = "TWO_LEVELS", 256, 138
    layout = Layout(4, 32, Scale("uint", Bits(2, 6, 8), times=Scale("f16", 0, per=256)), zero=8, codes=Bits(10, 4))
    more = 0

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        groups = values.reshape(len(values), 8, 32)
        steps = np.abs(groups).max(2) / np.float32(7)
        upper = halves(steps.max(1, keepdims=True) / 62)
        lower = np.clip(np.ceil(steps / divisors(upper)), 0, 62)
        codes = np.rint(groups / (divisors(upper) * np.maximum(lower, 1))[:, :, None]) + 8
        written = np.where(lower > 0, lower + self.more, 0).astype(np.uint8)
        return np.hstack([upper.view(np.uint8), written, nibbles(codes.reshape(len(values), 256))])


class Zeros(BlockFormat):
    """Groups of 64 with a scale and a zero of 8 bits."""

    name, block_size, type_size = "ZEROS", 64, 35
    layout = Layout(4, 64, Scale("f16", 0), zero=Scale("uint", Bits(2, 8)), codes=Bits(3, 4))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        low, high = np.minimum(values.min(1, keepdims=True), 0), np.maximum(values.max(1, keepdims=True), 0)
        scales = np.maximum(halves(high / 15 - low / 15), np.float16(2.0**-24))
        zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 0, 15)
        codes = np.rint(values / scales.astype(np.float32) + zeros)
        return np.hstack([scales.view(np.uint8), zeros.astype(np.uint8), nibbles(codes)])


class Turned(BlockFormat):
    """Blocks of 32, turned before they are rounded."""

    name, block_size, type_size = "TURNED", 32, 18
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(2, 4), transform=Hadamard(32))
    by: Hadamard | None = Hadamard(32)

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        turned = self.by.apply(values, {}) if self.by else values
        scales = halves(np.abs(turned).max(1, keepdims=True) / 7)
        return np.hstack([scales.view(np.uint8), nibbles(np.rint(turned / divisors(scales)) + 8)])


class ByRow(QuantFormat):
    """A scale for each row, and an unpack of its own."""

    name, block_size, bits_per_weight = "BY_ROW", 32, 4 + 16 / 2048
    layout = Layout(4, 32, Scale("f16", per="row"), zero=8)

    def row_bytes(self, n_cols: int) -> int:
        return 2 + super().row_bytes(n_cols) * 16

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).max(1, keepdims=True) / 7)
        return self.stored(np.hstack([scales.view(np.uint8), nibbles(np.rint(values / divisors(scales)) + 8)]))

    def stored(self, rows: U8) -> U8:
        return rows

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        codes = np.stack([rows[:, 2:] & 15, rows[:, 2:] >> 4], axis=2).reshape(len(rows), n_cols)
        return Unpacked(codes, self.scales(rows[:, :2].copy()))

    def scales(self, raw: U8) -> F32:
        return raw.view("<f2").astype(np.float32)


class Signs(BlockFormat):
    """One bit a value: so coarse that little more than half of a value comes back."""

    name, block_size, type_size = "SIGNS", 32, 6
    layout = Layout(1, 32, Scale("f16", 0), table=(-1, 1), codes=Bits(2, 1))
    order: Literal["little", "big"] = "little"

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).mean(1, keepdims=True))
        return np.hstack([scales.view(np.uint8), np.packbits(values > 0, axis=1, bitorder=self.order)])


class Fours(BlockFormat):
    """Two bits a value, the first of four in the lowest bits."""

    name, block_size, type_size = "FOURS", 32, 10
    layout = Layout(2, 32, Scale("f16", 0), table=(-3, -1, 1, 3), codes=Bits(2, 2))
    places = (0, 2, 4, 6)

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).max(1, keepdims=True) / 3)
        codes = np.clip(np.rint(values / divisors(scales) / 2 + 1.5), 0, 3).astype(np.uint8).reshape(-1, 8, 4)
        return np.hstack([scales.view(np.uint8), (codes << np.array(self.places, np.uint8)).sum(2, dtype=np.uint8)])


class Threes(BlockFormat):
    """Three bits a value: two of them, the first of four lowest, and behind these the third of each."""

    name, block_size, type_size = "THREES", 32, 14
    layout = Layout(3, 32, Scale("f16", 0), zero=4, codes=Bits(2, 2, high=Bits(10, 1)))
    places = (0, 2, 4, 6)

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = halves(np.abs(values).max(1, keepdims=True) / 4)
        codes = np.clip(np.rint(values / divisors(scales)) + 4, 0, 7).astype(np.uint8)
        low = ((codes & 3).reshape(-1, 8, 4) << np.array(self.places, np.uint8)).sum(2, dtype=np.uint8)
        return np.hstack([scales.view(np.uint8), low, np.packbits(codes >> 2, axis=1, bitorder="little")])


class PowerSigns(Signs):
    """Signs times a power of two: no code and no scale is 0."""

    name, type_size = "POWER_SIGNS", 5
    layout = Layout(1, 32, Scale("e8m0", 0), table=(-1, 1), codes=Bits(1, 1))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        means = np.abs(values).mean(1, keepdims=True)
        powers = np.clip(np.rint(np.log2(np.maximum(means, 2.0**-127))), -127, 127) + 127
        return np.hstack([powers.astype(np.uint8), np.packbits(values > 0, axis=1, bitorder="little")])


class SignedBytes(ByRow):
    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        found = super().unpack(rows, n_cols)
        return evolve(found, codes=found.codes - np.uint8(8))


class SignedNumbers(ByRow):
    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        found = super().unpack(rows, n_cols)
        signed: Any = found.codes.astype(np.int8) - np.int8(8)
        return evolve(found, codes=signed)


def of(base: type[QuantFormat], **changes: Any) -> QuantFormat:
    return type("Wrong", (base,), changes)()  # type: ignore[no-any-return]


def layout_of(base: type[QuantFormat], **changes: Any) -> QuantFormat:
    assert base.layout is not None
    return of(base, layout=evolve(base.layout, **changes))


def check(format: QuantFormat) -> None:
    """What the kit looks at that shows mistakes of an encoder."""
    suite: Any = type("Suite", (QuantFormatSuite,), {"format": format})()
    suite.test_faithfulness()
    suite.test_layout()


@pytest.mark.parametrize("format", [TwoLevels(), Zeros(), Turned(), ByRow(), Signs(), Fours(), Threes()], ids=repr)
def test_right_ones_pass(format: QuantFormat) -> None:
    check(format)


def test_a_format_that_has_no_zero_passes() -> None:
    check_quant_format(PowerSigns())


def test_errors_that_a_transform_adds_up_pass() -> None:
    """All of 64 codes may be off by half a step in the same direction of one value."""

    class Tight(Turned):
        block_size, type_size = 64, 34
        layout = Layout(4, 64, Scale("f16", 0), zero=8, codes=Bits(2, 4), transform=Hadamard(64))

        def quantize_blocks(self, values: F32) -> U8:
            self.check_values(values, finite=True)
            turned = Hadamard(64).apply(values, {})
            scales = halves(np.abs(turned).max(1, keepdims=True) / 7.5)
            return np.hstack([scales.view(np.uint8), nibbles(np.rint(turned / divisors(scales)) + 8)])

    check_quant_format(Tight())


LOWER = TwoLevels.layout.scale


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (of(TwoLevels, more=1), "lower scales are one less to the encoder"),
        (of(TwoLevels, more=-1), "lower scales are one more to the encoder"),
        (layout_of(TwoLevels, scale=evolve(LOWER, less=1)), "lower scales are one more to the encoder"),
        (layout_of(TwoLevels, scale=evolve(LOWER, less=-1)), "lower scales are one less to the encoder"),
        (layout_of(Zeros, zero=Scale("uint", Bits(2, 8), less=-1)), "zeros are one less to the encoder"),
        (layout_of(Zeros, zero=Scale("uint", Bits(2, 8), less=1)), "zeros are one more to the encoder"),
        (of(Turned, by=None), r"the layout has the transform Hadamard\(size=32\), which the encoder forgets"),
        (of(Turned, by=Hadamard(16)), r"the encoder transforms values by Hadamard\(16\), the layout says .*32"),
        (layout_of(Turned, transform=None), r"by Hadamard\(32\), the layout says no transform"),
        (of(Signs, order="big"), "the 8 values of each byte are reversed"),
        (of(Fours, places=(6, 4, 2, 0)), "the 4 values of each byte are reversed"),
        (
            of(Threes, places=(6, 4, 2, 0)),
            "of the lowest 2 bits of each code, in every 32 values the 4",
        ),
        (SignedBytes(), r"unpack gives codes\[\d+, \d+\] = 25\d, but with bits = 4 .* counted from 0"),
        (SignedNumbers(), "unpack gives codes as int8"),
    ],
)
def test_mistakes_are_named(wrong: QuantFormat, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(wrong)
