"""Q4_0 against the `gguf` package, bit for bit, and against the layout read off ggml's ``block_q4_0``."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from sis_q4_0 import sis_register_quant_formats
from sis_q4_0.q4_0 import Q4_0

from sis_core.arrays import F32, U8
from sis_core.testing import check_quant_format

RANDOM = np.random.default_rng(40)
NORMAL = RANDOM.standard_normal((64, 96)).astype(np.float32)
LARGEST = np.finfo(np.float32).max
CASES = {
    **{
        f"normal times {scale:g}": NORMAL * np.float32(scale) for scale in (1, 1e-3, 1e-7, 1e-30, 1e-41, 6e4, 1e6, 1e30)
    },
    "zeros": np.zeros((3, 64), np.float32),
    "negative zeros": -np.zeros((3, 64), np.float32),
    "halves": (RANDOM.integers(-16, 17, (64, 64)) / 2).astype(np.float32),
    "the largest is negative": np.where(np.arange(96) % 32 == 5, np.float32(-9), NORMAL),
    "the largest is positive": np.where(np.arange(96) % 32 == 31, np.float32(9), NORMAL),
    "equal values": np.full((3, 64), 0.37, np.float32),
    "two of the same magnitude": np.where(np.arange(96) % 2 == 0, np.float32(-2), np.float32(2))[None],
    "largest float32": RANDOM.choice(np.array([LARGEST, -LARGEST, 0, 1], np.float32), (16, 64)),
    "least float32": RANDOM.choice(np.array([1e-45, -1e-45, 0], np.float32), (16, 64)),
    "any bits": RANDOM.integers(0, 2**32, (64, 64), np.uint32).view(np.float32),
}


def reference(verb: str, given: F32 | U8) -> F32 | U8:
    with np.errstate(all="ignore"):
        found: F32 | U8 = getattr(quants, verb)(given, GGMLQuantizationType.Q4_0)
    return found


def by_hand(block: bytes) -> list[float]:
    """One block, one value after the other."""
    (d,) = struct.unpack_from("<e", block)
    return [d * ((block[2 + i % 16] >> (4 if i >= 16 else 0) & 15) - 8) for i in range(32)]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case: str) -> None:
    values = CASES[case]
    rows = Q4_0().quantize(values)
    np.testing.assert_array_equal(rows, reference("quantize", values))
    decoded = Q4_0().dequantize(rows, values.shape[1])
    np.testing.assert_array_equal(decoded.view(np.uint32), reference("dequantize", rows).view(np.uint32))


def test_any_bytes_decode_as_in_the_reference() -> None:
    rows = RANDOM.integers(0, 256, (500, 36), np.uint8)
    decoded = Q4_0().dequantize(rows, 64)
    np.testing.assert_array_equal(decoded.view(np.uint32), reference("dequantize", rows).view(np.uint32))


def test_layout() -> None:
    data = np.float16(0.75).tobytes() + bytes(range(16)) + np.float16(-2).tobytes() + bytes(range(240, 256))
    blocks = np.frombuffer(data, np.uint8).reshape(2, 18)
    assert Q4_0().dequantize(blocks, 32).tolist() == [by_hand(block.tobytes()) for block in blocks]


def test_contract() -> None:
    check_quant_format(Q4_0())


def test_hook() -> None:
    (found,) = sis_register_quant_formats()
    assert (found.name, found.type_id, found.bits_per_weight) == ("Q4_0", 2, 4.5)
