"""`check_quant_format` passes a plain format, and names the fault of each of many wrong ones."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing import check_quant_format
from sis_core.testing.native_decoder import DECODER


class Plain(BlockFormat):
    """16 values in 4 bits, ``x = d * (q - 8)``, value ``i`` beside value ``i + 8``: 10 bytes a block."""

    name, block_size, type_size = "PLAIN", 16, 10

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        with np.errstate(invalid="ignore"):
            return (self.unpack(blocks[:, 2:]).astype(np.float32) - np.float32(8)) * scales

    def quantize_blocks(self, values: F32) -> U8:
        with np.errstate(over="ignore", invalid="ignore"):
            scales = (np.abs(values).max(axis=1, keepdims=True) / np.float32(7)).astype("<f2")
            wide = scales.astype(np.float32)
            quants = values / np.where((wide == 0) | ~np.isfinite(wide), np.float32(1), wide)
        quants = np.clip(np.nan_to_num(np.rint(quants)) + 8, 0, 15)
        return np.concatenate([scales.view(np.uint8), self.pack(quants.astype(np.uint8))], axis=1)

    def pack(self, quants: U8) -> U8:
        return quants[:, :8] | quants[:, 8:] << np.uint8(4)

    def unpack(self, packed: U8) -> U8:
        return np.concatenate([packed & 15, packed >> 4], axis=1)


class SwappedHalves(Plain):
    def unpack(self, packed: U8) -> U8:
        return np.concatenate([packed >> 4, packed & 15], axis=1)


class Interleaved(Plain):
    def unpack(self, packed: U8) -> U8:
        return np.stack([packed & 15, packed >> 4], axis=2).reshape(-1, 16)


class SwappedNibbles(Interleaved):
    def pack(self, quants: U8) -> U8:
        return quants[:, 1::2] | quants[:, ::2] << np.uint8(4)


class Reversed(Plain):
    def unpack(self, packed: U8) -> U8:
        return super().unpack(packed)[:, ::-1]


class ScaleOfTheBlockBefore(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        moved = blocks.copy()
        moved[:, :2] = np.roll(blocks[:, :2], 1, axis=0)
        return super().dequantize_blocks(moved)


class ScaleOfTheBlockBeforeWhenEncoding(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        blocks = super().quantize_blocks(values).reshape(-1, 4 if len(values) % 4 == 0 else 1, 10)
        blocks[:, :, :2] = np.roll(blocks[:, :, :2], 1, axis=1)
        return blocks.reshape(-1, 10)


class OtherSign(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        return -super().dequantize_blocks(blocks)


class LosesTheSignOfOneSide(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        return super().quantize_blocks(np.where((values < 0).all(axis=1, keepdims=True), -values, values))


class ForgetsEqualValues(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        equal = values.max(axis=1, keepdims=True) == values.min(axis=1, keepdims=True)
        return super().quantize_blocks(np.where(equal, np.float32(0), values))


class CopiesANeighbour(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        values = super().dequantize_blocks(blocks)
        values[:, -1] = values[:, -2]
        return values


class TwiceAsLarge(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        with np.errstate(over="ignore"):
            return super().dequantize_blocks(blocks) * np.float32(1.5)


class Coarse(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        return super().quantize_blocks(values) & np.array([255, 255] + [0xCC] * 8, np.uint8)


class Drifting(Plain):
    """Loses a little each time, but always the same way: one trip is good, ten are not."""

    def quantize_blocks(self, values: F32) -> U8:
        with np.errstate(all="ignore"):
            on_grid = np.abs(values / (np.abs(values).max(axis=1, keepdims=True) / 7 + 1e-30) % 1) < 1e-3
            moved = np.where(on_grid.all(axis=1, keepdims=True), values * np.float32(0.8), values)
        return super().quantize_blocks(moved.astype(np.float32))


class Random(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        with np.errstate(over="ignore"):
            return super().dequantize_blocks(blocks) * np.float32(1 + 1e-3 * np.random.default_rng().random())


class Remembers(Plain):
    def __init__(self) -> None:
        self.largest = np.float32(0)

    def quantize_blocks(self, values: F32) -> U8:
        self.largest = max(self.largest, np.abs(values).max())
        coarse = self.largest / np.float32(100)
        return super().quantize_blocks((np.round(values / coarse) * coarse).astype(np.float32))


class KeepsState(Plain):
    def __init__(self) -> None:
        self.last: Any = None

    def dequantize_blocks(self, blocks: U8) -> F32:
        with np.errstate(over="ignore", invalid="ignore"):
            values = super().dequantize_blocks(blocks) * np.float32(1 if self.last == blocks[0, 4] else 1.001)
        self.last = self.last if self.last is not None and self.last == blocks[-1, 4] else blocks[0, 4]
        return values


class OneBuffer(Plain):
    def __init__(self) -> None:
        self.buffers: dict[int, F32] = {}

    def dequantize_blocks(self, blocks: U8) -> F32:
        buffer = self.buffers.setdefault(len(blocks), np.empty((len(blocks), 16), np.float32))
        buffer[:] = super().dequantize_blocks(blocks)
        return buffer


class Scratch(Plain):
    """Puts the scales aside in the instance, where another thread finds them."""

    def dequantize_blocks(self, blocks: U8) -> F32:
        self.blocks = blocks.copy()
        time.sleep(0)
        return super().dequantize_blocks(self.blocks)


class Doubles(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        return super().dequantize_blocks(blocks).astype(np.float64)


class SignedBytes(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        return super().quantize_blocks(values).view(np.int8)


class Transposed(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        return super().dequantize_blocks(blocks).T


class TooFewBytes(Plain):
    type_size = 9

    def dequantize_blocks(self, blocks: U8) -> F32:
        return super().dequantize_blocks(np.pad(blocks, ((0, 0), (0, 1))))


class FewerBits(Plain):
    bits_per_weight = 4.0


class WritesToBytes(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        blocks[:, 2:] ^= 0x88
        return super().dequantize_blocks(blocks)


class WritesToValues(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        values /= 2
        return super().quantize_blocks(values * 2)


class WritesBehindTheBack(Plain):
    """Through the address, which the read-only flag does not guard."""

    def dequantize_blocks(self, blocks: U8) -> F32:
        ctypes.memset(blocks.ctypes.data, 0, 1)
        return super().dequantize_blocks(blocks)


class NanOfZeros(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        blocks = super().quantize_blocks(values)
        blocks[~values.any(axis=1), :2] = np.array(np.nan, "<f2").reshape(1).view(np.uint8)
        return blocks


class NotZero(Plain):
    def dequantize_blocks(self, blocks: U8) -> F32:
        return super().dequantize_blocks(blocks) + np.float32(1e-6)


class Overflows(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        scaled = np.where(np.abs(values).max(axis=1, keepdims=True) > 1e4, values * np.float32(10), values)
        with np.errstate(all="ignore"):
            return super().quantize_blocks((scaled * np.float32(2)).astype(np.float32))

    def dequantize_blocks(self, blocks: U8) -> F32:
        with np.errstate(all="ignore"):
            return super().dequantize_blocks(blocks) / np.float32(2)


class Warns(Plain):
    def quantize_blocks(self, values: F32) -> U8:
        np.log(np.abs(values))
        return super().quantize_blocks(values)


class ScaleOfTheMatrix(Plain):
    def quantize(self, values: F32) -> U8:
        self.check_values(values)
        blocks = self.quantize_blocks(values.reshape(-1, 16))
        largest = blocks[:, :2].copy().view("<f2").max()
        blocks[0, :2] = np.array([largest], "<f2").view(np.uint8)
        return blocks.reshape(len(values), -1)


class Trusting(QuantFormat):
    """Not a `BlockFormat`, and never looks at what it is given."""

    name, block_size, type_size = "TRUSTING", 16, 10

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return Plain().dequantize_blocks(rows.reshape(-1, 10)).reshape(len(rows), -1)


class ContiguousOnly(Plain):
    """Takes the address of the rows and forgets that they may lie apart."""

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        self.check_rows(rows, n_cols)
        data = np.frombuffer(ctypes.string_at(rows.ctypes.data, rows.size), np.uint8)
        return self.dequantize_blocks(data.reshape(-1, 10)).reshape(len(rows), n_cols)


class AcceptsAnyRow(Plain):
    def row_bytes(self, n_cols: int) -> int:
        return -(-n_cols // 16) * 10


class ImportanceUpsideDown(Plain):
    def quantize_weighted(self, values: F32, importance: F32) -> U8:
        return self.quantize(np.where(importance > 1, np.round(values), values).astype(np.float32))


class SaysItCannot(Plain):
    can_quantize = False


class Nameless(Plain):
    name = ""


class Native(Plain):
    """With a native decoder: here a Python function behind a C address."""

    def __init__(self) -> None:
        self.function = DECODER(self.decode)

    @property
    def decoder(self) -> int:
        address = ctypes.cast(self.function, ctypes.c_void_p).value
        assert address
        return address

    def decode(self, rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
        for i in range(n_rows):
            data = ctypes.string_at(rows + i * row_bytes, self.row_bytes(n_cols))
            values = self.dequantize(np.frombuffer(data, np.uint8)[None], n_cols)
            ctypes.memmove(out + i * n_cols * 4, values.tobytes(), n_cols * 4)


class NativePairs(Native):
    def decode(self, rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
        super().decode(rows, row_bytes, n_rows - n_rows % 2, n_cols, out)


class NativeTooFar(Native):
    def decode(self, rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
        super().decode(rows, row_bytes, n_rows, n_cols, out)
        ctypes.memset(out + n_rows * n_cols * 4, 0, 4)


class NativeContiguous(Native):
    def decode(self, rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
        super().decode(rows, self.row_bytes(n_cols), n_rows, n_cols, out)


class NativeOther(Native):
    def unpack(self, packed: U8) -> U8:
        return super().unpack(packed)

    def decode(self, rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
        super().decode(rows, row_bytes, n_rows, n_cols, out)
        values = (ctypes.c_float * n_cols).from_address(out)
        values[5] += 1


WRONG = [
    (SwappedHalves, "values come back in another order: the halves of each block are swapped"),
    (Interleaved, "another order: one side takes the nibbles of a byte for neighbours"),
    (SwappedNibbles, "another order: low and high nibbles of each byte are swapped"),
    (Reversed, "another order: each block is reversed"),
    (LosesTheSignOfOneSide, "values lose their sign .*only negative values"),
    (ForgetsEqualValues, "values come back as nothing .*equal values"),
    (CopiesANeighbour, "value 15 of each block comes back wrong: .* times the error of others"),
    (ScaleOfTheBlockBefore, "dequantize: block . uses bytes of block ., such as its scale"),
    (
        ScaleOfTheBlockBeforeWhenEncoding,
        "times as large: it uses another block's scale|quantize: row . alone gives another",
    ),
    (OtherSign, "sign reversed"),
    (TwiceAsLarge, r"come back 1\.5 times as large"),
    (
        Coarse,
        r"has an error of 0\.\d+; 5 bits should give 0\.125. A format that is coarse on purpose says so: .*max_error=",
    ),
    (Drifting, "second round trip"),
    (Random, "dequantize is not deterministic"),
    (Remembers, "quantize keeps state between calls"),
    (KeepsState, "dequantize (keeps state between calls|is not deterministic)"),
    (OneBuffer, "same memory each time"),
    (Scratch, "dequantize is not thread-safe: results of one thread turn up in another"),
    (Doubles, "dequantize_blocks returns float64, not float32"),
    (SignedBytes, "quantize_blocks returns int8, not uint8"),
    (Transposed, r"dequantize_blocks returns the shape \(16, 5\), not \(5, 16\)"),
    (TooFewBytes, "quantize_blocks makes 10 bytes a block, but type_size says 9"),
    (FewerBits, "declares 4 bits a weight, but its rows take 5"),
    (WritesToBytes, "writes to its input"),
    (WritesToValues, "writes to its input"),
    (WritesBehindTheBack, "dequantize writes to its input"),
    (NanOfZeros, "turns finite values into nan.*zeros"),
    (NotZero, "turns zeros into 1e-06"),
    (Overflows, "turns finite values into (nan|-?inf)|turns values of at most"),
    (Warns, "quantize warns: .*np.errstate"),
    (ScaleOfTheMatrix, "quantize: (row . alone gives another result|rows in another order give other results)"),
    (Trusting, "dequantize ignores n_cols"),
    (ContiguousOnly, r"rows cut out of longer rows \(strided\)"),
    (AcceptsAnyRow, "row_bytes accepts a row of (0|17) values"),
    (ImportanceUpsideDown, "importance makes the weighted error larger"),
    (SaysItCannot, "quantize works, but can_quantize is False"),
    (Nameless, "has no name"),
    (NativePairs, "native decoder leaves row 0, column 0 unwritten"),
    (NativeTooFar, "native decoder writes outside its output"),
    (NativeContiguous, "native decoder gives .* in row 1"),
    (NativeOther, "native decoder gives .* in row 0, column 5, where dequantize gives"),
]


@pytest.mark.parametrize("format", [Plain(), Native()], ids=lambda f: type(f).__name__)
def test_passes(format: QuantFormat) -> None:
    check_quant_format(format)


@pytest.mark.parametrize(("wrong", "fault"), WRONG, ids=[wrong.__name__ for wrong, _ in WRONG])
def test_names_the_fault(wrong: type[QuantFormat], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault) as caught:
        check_quant_format(wrong())
    assert str(caught.value).startswith(f"format {wrong.name}: ")


def test_an_author_may_state_the_error() -> None:
    check_quant_format(Plain(), max_error=0.11)
    with pytest.raises(AssertionError, match=r"has an error of 0\.\d+; max_error allows 0\.05 "):
        check_quant_format(Plain(), max_error=0.05)


class TwoOfFour(BlockFormat):
    """The two largest of every four values in 16 bits, and where they stood; the others are zero."""

    name, block_size, type_size = "TWO_OF_FOUR", 8, 10

    def quantize_blocks(self, values: F32) -> U8:
        fours = values.reshape(-1, 4)
        kept = np.sort(np.argsort(-np.abs(fours), axis=1, kind="stable")[:, :2], axis=1)
        halves = np.take_along_axis(fours, kept, 1).astype("<f2").reshape(-1, 4)
        places = (kept[:, 0] | kept[:, 1] << 2).astype(np.uint8).reshape(-1, 2)
        return np.hstack([halves.view(np.uint8), places])

    def dequantize_blocks(self, blocks: U8) -> F32:
        places = blocks[:, 8:].reshape(-1, 1)
        kept = np.hstack([places & 3, places >> 2 & 3]).astype(np.intp)
        values = np.zeros((len(kept), 4), np.float32)
        halves = blocks[:, :8].copy().view("<f2").astype(np.float32).reshape(-1, 2)
        np.put_along_axis(values, kept, halves, 1)
        return values.reshape(-1, 8)


def test_what_is_coarse_on_purpose_is_told_where_to_say_so() -> None:
    where = r"check_quant_format\(format, max_error=…\), or max_error = … in its QuantFormatSuite"
    with pytest.raises(AssertionError, match=f"has an error of 0.36.; 10 bits should give 0.00391.*{where}"):
        check_quant_format(TwoOfFour())
    check_quant_format(TwoOfFour(), max_error=0.4)


def test_a_format_that_only_decodes() -> None:
    class Decoder(BlockFormat):
        name, block_size, type_size = "DECODER", 16, 10

        def dequantize_blocks(self, blocks: U8) -> F32:
            return Plain().dequantize_blocks(blocks)

    check_quant_format(Decoder())
    with pytest.raises(FormatError, match="DECODER: has no encoder"):
        Decoder().quantize(np.zeros((1, 16), np.float32))
