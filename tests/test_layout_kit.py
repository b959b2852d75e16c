"""`check_quant_format` holds layouts to decoders and encoders, and names what is wrong with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import QuantFormatSuite, check_quant_format

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
        ({"minimum": None}, "by the layout"),
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
    with pytest.raises(AssertionError, match="scales that are more by one"):
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
        ({"scale": Scale("f16", 0, factor=2)}, "0.5 times as large: a scale is off"),
        ({"scale": Scale("f16", 0, factor=7 / 8)}, r"0\.8\d+ times as large, more than rounding explains"),
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

    for wrong, fault in ((Writes, "writes to its input"), (Joined, "row 0 alone"), (Short, "unpack gives codes as")):
        with pytest.raises(AssertionError, match=fault):
            check(wrong())
