"""`check_quant_format` holds layouts to decoders and encoders, and names what is wrong with one."""

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

LEVELS = tuple((np.arange(16) - 7.5) ** 3 / 7.5**3)  # no whole numbers
HALVES, NEIGHBOURS = (Bits(8, 4, 8), Bits(8, 4, 8, 4)), Bits(8, 4)
GOOD = Layout(4, 16, Scale("f16", 0), Scale("f16", 4), codes=HALVES)


class Affine(BlockFormat):
    """``d * q + m`` for groups of 16, two in a block; its own decoder beside the layout."""

    name, block_size, type_size, layout = "AFFINE", 32, 24, GOOD

    def dequantize_blocks(self, blocks: U8) -> F32:
        d, m = np.split(np.ascontiguousarray(blocks[:, :8]).view("<f2").astype(np.float32), 2, axis=1)
        codes = np.hstack([blocks[:, 8:] & 15, blocks[:, 8:] >> 4]).reshape(-1, 2, 16)
        return (d[:, :, None] * codes + m[:, :, None]).reshape(-1, 32)

    def quantize_blocks(self, values: F32) -> U8:
        groups = np.nan_to_num(values).reshape(-1, 2, 16)
        m = np.clip(groups.min(axis=2), -65504, 65504).astype("<f2")
        d = np.clip((groups.max(axis=2) - m.astype(np.float32)) / 15, 0, 65504).astype("<f2")
        steps = (groups - m[:, :, None].astype(np.float32)) / np.where(d > 0, d, 1)[:, :, None].astype(np.float32)
        codes = np.clip(np.rint(np.nan_to_num(steps)), 0, 15).astype(np.uint8).reshape(-1, 32)
        return np.hstack([d.view(np.uint8), m.view(np.uint8), codes[:, :16] | codes[:, 16:] << 4])


def of(layout: Layout, base: type[QuantFormat] = Affine) -> QuantFormat:
    return type("Wrong", (base,), {"layout": layout})()  # type: ignore[no-any-return]


def check(format: QuantFormat) -> None:
    """The part of the kit that looks at layouts."""
    type("Suite", (QuantFormatSuite,), {"format": format})().test_layout()


def test_a_right_one_passes() -> None:
    check_quant_format(Affine(), max_error=0.07)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"codes": NEIGHBOURS}, "one side takes the nibbles of a byte for neighbours"),
        ({"codes": HALVES[::-1]}, "the halves of each block are swapped"),
        ({"minimum": Scale("f16", 4, factor=-1)}, "the layout adds a minimum that the decoder subtracts"),
        ({"scale": Scale("f16", 4), "minimum": Scale("f16", 0)}, "scale and minimum are exchanged"),
        ({"minimum": None}, "the decoder has a number in each group that the layout does not add: a minimum"),
        ({"scale": Scale("f16", (Bits(2, 16), Bits(0, 16)))}, "the scale of the group (before|behind)"),
        ({"scale": Scale("f16", 0, factor=0.5), "minimum": Scale("f16", 4, factor=0.5)}, "2 times as large"),
        ({"zero": 1}, "counts codes from 0, not from 1"),
        ({"table": range(16)[::-1]}, "the table is in reverse order"),
        ({"table": np.roll(range(16), 1)}, "off by one in the table"),
        ({"table": [i ^ 8 for i in range(16)]}, "two's complement"),
    ],
)  # fmt: skip
def test_what_differs_from_the_decoder_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(of(evolve(GOOD, **changes)))


class Beside(BlockFormat):
    """Whole scales and minima of two levels, codes of 5 bits cut in two, and a decoder of its own beside the layout."""

    name, block_size, type_size = "BESIDE", 64, 50
    layout = Layout(
        5, 16, Scale("uint", Bits(4, 8), times=Scale("f16", 0, per=64)),
        Scale("uint", Bits(8, 4), factor=-1, times=Scale("f16", 2, per=64)), codes=Bits(10, 4, high=Bits(42, 1)),
    )  # fmt: skip
    bitorder: Literal["little", "big"] = "little"
    size = 1.0

    def dequantize_blocks(self, blocks: U8) -> F32:
        d, m = (np.ascontiguousarray(blocks[:, i : i + 2]).view("<f2").astype(np.float32) for i in (0, 2))
        low, mins = (
            np.stack([b & 15, b >> 4], axis=2).reshape(len(b), -1) for b in (blocks[:, 10:42], blocks[:, 8:10])
        )
        codes = low | np.unpackbits(blocks[:, 42:], axis=1, bitorder=self.bitorder) << 4
        scales, minima = (np.repeat(numbers, 16, axis=1) for numbers in (d * blocks[:, 4:8], m * mins))
        return (codes * scales - minima) * np.float32(self.size)


D, DMIN = Scale("f16", 0, per=64), Scale("f16", 2, per=64)
REVERSED = tuple(Bits(at, 8) for at in (7, 6, 5, 4))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"scale": Scale("uint", Bits(4, 8), times=DMIN), "minimum": Scale("uint", Bits(8, 4), factor=-1, times=D)},
         "the upper scales and minima are exchanged"),
        ({"scale": Scale("uint", REVERSED, times=D)}, "the scales of each 64 values are in reverse order"),
        ({"scale": Scale("int", Bits(4, 8), times=D)}, "the scale is uint to the decoder, int to the layout"),
        ({"codes": Bits(18, 4, high=Bits(10, 1))}, "the codes at byte 10 and the high bits of codes at byte 42"),
        ({"bits": 4, "codes": Bits(10, 4)}, "codes have 1 more bits to the decoder, in bytes 42 to 49"),
    ],
)  # fmt: skip
def test_what_lies_elsewhere_than_the_layout_says_is_named(changes: dict[str, Any], fault: str) -> None:
    check(Beside())
    with pytest.raises(AssertionError, match=fault):
        check(of(evolve(Beside.layout, **changes), Beside))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bitorder": "big"}, "of the bits above the lowest 4 .* the 8 values of each byte are reversed"),
        ({"size": 2.0}, "the decoder's values are 2 times as large"),
        ({"size": 1.01}, "the decoder's values are 1.01 times as large"),
    ],
)
def test_a_decoder_that_is_wrong_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(type("Wrong", (Beside,), changes)())


class WholeScales(BlockFormat):
    """Scales of 4 bits, times a half; stored less one, which the decoder knows."""

    name, block_size, type_size = "WHOLE", 32, 19

    def dequantize_blocks(self, blocks: U8) -> F32:
        d = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        scales = np.hstack([blocks[:, 2:3] & 15, blocks[:, 2:3] >> 4]) + np.float32(1)
        codes = np.stack([blocks[:, 3:] & 15, blocks[:, 3:] >> 4], axis=2).reshape(-1, 2, 16) - np.float32(8)
        return (d * scales)[:, :, None].repeat(16, 2).reshape(-1, 32) * codes.reshape(-1, 32)


def whole(less: int) -> QuantFormat:
    scale = Scale("uint", Bits(2, 4), less=less, times=Scale("f16", 0, per=32))
    return of(Layout(4, 16, scale, zero=8, codes=Bits(3, 4)), WholeScales)


def test_a_scale_that_is_off_by_one_is_named() -> None:
    check(whole(-1))
    with pytest.raises(AssertionError, match="scales are one more to the decoder"):
        check(whole(0))


class Table(BlockFormat):
    """Levels in float32; a layout may state them rounded to 8 bits."""

    name, block_size, type_size = "TABLE", 32, 18
    layout = Layout(4, 32, Scale("f16", 0, factor=1 / 127), table=np.rint(np.multiply(LEVELS, 127)), codes=Bits(2, 4))

    def dequantize_blocks(self, blocks: U8) -> F32:
        d = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        codes = np.stack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=2).reshape(-1, 32)
        return np.asarray(LEVELS, np.float32)[codes] * d


def test_a_table_may_be_rounded_to_bytes_and_no_further() -> None:
    check(Table())
    check(of(Layout(4, 32, Scale("f16", 0), table=LEVELS, codes=Bits(2, 4)), Table))
    coarse = Layout(4, 32, Scale("f16", 0, factor=1 / 31), table=np.rint(np.multiply(LEVELS, 31)), codes=Bits(2, 4))
    with pytest.raises(AssertionError, match="by the decoder"):
        check(of(coarse, Table))


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        (Layout(4, 32, Scale("f16", 16), table=LEVELS, codes=Bits(0, 4)), "the scale at byte 0 and the codes at"),
        (Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(2, 4)), "codes stand for other numbers .* a table missing"),
        (Layout(4, 32, Scale("f16", 0), table=(*LEVELS[:3], 0.0, *LEVELS[4:]), codes=Bits(2, 4)),
         "to the decoder the code 3 stands for -0.216 times the scale, not 0"),
        (Layout(4, 32, Scale("f16", 0), table=LEVELS, codes=Bits(2, 4), transform=Hadamard(32)), "the decoder forgets"),
        (Layout(4, 32, Scale("f16", 0), table=LEVELS[::-1], codes=Bits(2, 4)), "sign, or the table is in reverse"),
    ],
)  # fmt: skip
def test_a_layout_beside_a_right_decoder(layout: Layout, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(of(layout, Table))


class Encoded(BlockFormat):
    """No decoder: what the layout says is held to what the encoder writes."""

    name, block_size, type_size = "ENCODED", 32, 18
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=(Bits(2, 4, 8), Bits(2, 4, 8, 4)))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        d = np.minimum(np.abs(values).max(axis=1, keepdims=True) / 7, 65504).astype("<f2")
        codes = np.clip(np.rint(values / np.where(d > 0, d, 1).astype(np.float32)) + 8, 1, 15).astype(np.uint8)
        return np.hstack([d.view(np.uint8), codes[:, :16] | codes[:, 16:] << 4])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"codes": Bits(2, 4)}, "takes the nibbles of a byte for neighbours, the other for values half a block apart"),
        ({"scale": Scale("f16", 0, factor=2)}, "the encoder takes the scale as it is stored, the layout times 2"),
        ({"scale": Scale("f16", 0, factor=7 / 8)}, "takes the scale as it is stored, the layout times 0.875"),
        ({"scale": Scale("f16", 0, factor=-1)}, "sign reversed"),
    ],
)
def test_a_layout_alone_is_held_to_the_encoder(changes: dict[str, Any], fault: str) -> None:
    check_quant_format(Encoded())
    wrong = type("Wrong", (QuantFormatSuite,), {"format": of(evolve(Encoded.layout, **changes), Encoded)})
    with pytest.raises(AssertionError, match=fault):
        wrong().test_faithfulness()


def test_what_unpack_may_not_do() -> None:
    class Writes(Affine):
        def unpack(self, rows: U8, n_cols: int) -> Unpacked:
            rows[0, 0] = 0
            return super().unpack(rows, n_cols)

    class Joined(Affine):
        def unpack(self, rows: U8, n_cols: int) -> Unpacked:
            found = super().unpack(rows, n_cols)
            return evolve(found, scales=np.tile(found.scales.max(axis=0), (len(rows), 1)))

    class Short(Affine):
        def unpack(self, rows: U8, n_cols: int) -> Unpacked:
            found = super().unpack(rows, n_cols)
            return evolve(found, codes=found.codes[:, 1:])

    class Mixed(Encoded):
        """Without a decoder of its own: numpy decodes blocks, native code packs rows."""

        def unpack(self, rows: U8, n_cols: int) -> Unpacked:
            found = super().unpack(rows, n_cols)
            return evolve(found, scales=np.roll(found.scales, 1, axis=1))

    faults = {
        Writes: "writes to its input",
        Joined: "row 0 alone",
        Short: "unpack gives codes as",
        Mixed: "block 0 of row 0 gives other numbers alone than in its row",
    }
    for wrong, fault in faults.items():
        with pytest.raises(AssertionError, match=fault):
            check(wrong())
