"""What Q4_0 and Q8_0 are tested with: the `gguf` package, bit for bit, and blocks decoded by hand."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import numpy as np
from gguf import GGMLQuantizationType, quants

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat
from sis_core.testing import QuantFormatSuite

RANDOM = np.random.default_rng(40)
NORMAL = RANDOM.standard_normal((64, 96)).astype(np.float32)
LARGEST = np.finfo(np.float32).max
CASES = {
    **{
        f"normal times {scale:g}": NORMAL * np.float32(scale) for scale in (1, 1e-3, 1e-7, 1e-30, 1e-41, 6e4, 1e6, 1e30)
    },
    "zeros": np.zeros((3, 64), np.float32),
    "negative zeros": -np.zeros((3, 64), np.float32),
    "halves up to 8": (RANDOM.integers(-16, 17, (64, 64)) / 2).astype(np.float32),
    "halves up to 127": (RANDOM.integers(-254, 255, (64, 64)) / 2).astype(np.float32),
    "the largest is negative": np.where(np.arange(96) % 32 == 5, np.float32(-9), NORMAL),
    "the largest is positive": np.where(np.arange(96) % 32 == 31, np.float32(9), NORMAL),
    "equal values": np.full((3, 64), 0.37, np.float32),
    "two of the same magnitude": np.where(np.arange(96) % 2 == 0, np.float32(-2), np.float32(2))[None],
    "largest float32": RANDOM.choice(np.array([LARGEST, -LARGEST, 0, 1], np.float32), (16, 64)),
    "least float32": RANDOM.choice(np.array([1e-45, -1e-45, 0], np.float32), (16, 64)),
    "any bits": RANDOM.integers(0, 2**32, (64, 64), np.uint32).view(np.float32),
}


class BlockFormatSuite(QuantFormatSuite):
    """The kit's tests, and these. A format is a half-precision scale and codes of 32 values in each block.

    A subclass has `codes`, which decodes the bytes after the scale by hand.
    """

    format: ClassVar[BlockFormat]

    def codes(self, data: bytes) -> list[int]:
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", CASES)

    def reference(self, verb: str, given: F32 | U8) -> F32 | U8:
        with np.errstate(all="ignore"):
            found: F32 | U8 = getattr(quants, verb)(given, GGMLQuantizationType[self.format.name])
        return found

    def test_equals_the_reference(self, case: str) -> None:
        values = CASES[case]
        rows = self.format.quantize(values)
        np.testing.assert_array_equal(rows, self.reference("quantize", values))
        self.decodes_as_the_reference(rows, values.shape[1])

    def test_any_bytes_decode_as_in_the_reference(self) -> None:
        rows = np.random.default_rng(41).integers(0, 256, (500, 2 * self.format.type_size), np.uint8)
        self.decodes_as_the_reference(rows, 64)

    def decodes_as_the_reference(self, rows: U8, n_cols: int) -> None:
        decoded, wanted = self.format.dequantize(rows, n_cols), self.reference("dequantize", rows)
        np.testing.assert_array_equal(decoded.view(np.uint32), wanted.view(np.uint32))

    def test_layout(self) -> None:
        n = self.format.type_size - 2
        low, high = bytes(range(n)), bytes(range(256 - n, 256))
        data = struct.pack("<e", 0.75) + low + struct.pack("<e", -2) + high
        found = self.format.dequantize(np.frombuffer(data, np.uint8).reshape(2, -1), 32).tolist()
        assert found == [[0.75 * q for q in self.codes(low)], [-2 * q for q in self.codes(high)]]
