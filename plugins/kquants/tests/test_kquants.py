"""The K-quants: decoders against the layout written out value by value, encoders against the errors of ggml's."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from sis_kquants import sis_register_quant_formats
from sis_kquants.bits import pack_scales_and_mins, scales_and_mins, spread
from sis_kquants.columns import CHUNK, pack

from sis_core.arrays import F32
from sis_core.quant import QuantFormat
from sis_core.testing import check_quant_format

FORMATS = {format.name: format for format in sis_register_quant_formats()}
f32 = np.float32


def halves(block: bytes, *offsets: int) -> list[np.float32]:
    return [f32(struct.unpack_from("<e", block, offset)[0]) for offset in offsets]


def scale_and_min(packed: bytes, i: int) -> tuple[int, int]:
    """Scale and min ``i`` of the 12 bytes that Q4_K and Q5_K share."""
    if i < 4:
        return packed[i] & 63, packed[i + 4] & 63
    return packed[i + 4] & 15 | (packed[i - 4] >> 6) << 4, packed[i + 4] >> 4 | (packed[i] >> 6) << 4


def q2_k(block: bytes) -> list[np.float32]:
    d, dmin = halves(block, 80, 82)
    values = []
    for i in range(256):
        q = block[16 + i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3
        both = block[i // 16]
        values.append(d * f32(both & 15) * f32(q) - dmin * f32(both >> 4))
    return values


def q3_k(block: bytes) -> list[np.float32]:
    (d,) = halves(block, 108)
    values = []
    for i in range(256):
        q = block[32 + i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3
        q |= (block[i % 32] >> (i // 32) & 1) << 2
        j = i // 16
        scale = block[96 + j % 8] >> (j // 8 * 4) & 15 | (block[104 + j % 4] >> (j // 4 * 2) & 3) << 4
        values.append(d * f32(scale - 32) * f32(q - 4))
    return values


def q4_k(block: bytes) -> list[np.float32]:
    d, dmin = halves(block, 0, 2)
    values = []
    for i in range(256):
        scale, low = scale_and_min(block[4:16], i // 32)
        q = block[16 + i // 64 * 32 + i % 32] >> (i % 64 // 32 * 4) & 15
        values.append(d * f32(scale) * f32(q) - dmin * f32(low))
    return values


def q5_k(block: bytes) -> list[np.float32]:
    d, dmin = halves(block, 0, 2)
    values = []
    for i in range(256):
        scale, low = scale_and_min(block[4:16], i // 32)
        q = block[48 + i // 64 * 32 + i % 32] >> (i % 64 // 32 * 4) & 15
        q |= (block[16 + i % 32] >> (i // 32) & 1) << 4
        values.append(d * f32(scale) * f32(q) - dmin * f32(low))
    return values


def q6_k(block: bytes) -> list[np.float32]:
    (d,) = halves(block, 208)
    values = []
    for i in range(256):
        half, j = divmod(i, 128)
        q = block[half * 64 + j % 64] >> (j // 64 * 4) & 15
        q |= (block[128 + half * 32 + j % 32] >> (j // 32 * 2) & 3) << 4
        (scale,) = struct.unpack_from("<b", block, 192 + i // 16)
        values.append(d * f32(scale) * f32(q - 32))
    return values


BY_HAND: dict[str, Callable[[bytes], list[np.float32]]] = {
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_decodes_as_written_out(format: QuantFormat) -> None:
    golden = Path(__file__).parents[3] / "tests" / "goldens" / "formats" / f"{format.name}.json"
    rows = np.frombuffer(bytes.fromhex(json.loads(golden.read_text())["rows"]), np.uint8).reshape(2, -1)
    expected = [BY_HAND[format.name](row.tobytes()) for row in rows]
    np.testing.assert_array_equal(format.dequantize(rows, 256), np.array(expected))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_any_bytes_decode_as_in_the_gguf_package(format: QuantFormat) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (50, format.row_bytes(768)), np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(rows, GGMLQuantizationType[format.name])
    np.testing.assert_array_equal(format.dequantize(rows, 768).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_contract(format: QuantFormat) -> None:
    check_quant_format(format)


# Relative root mean square errors of ggml 0.25.3 on the values below, without and with importance, made once by its
# `quantize_q4_K` and so on: ours must not be larger.
GGML = json.loads((Path(__file__).parent / "ggml_errors.json").read_text())


def rows(kind: str) -> F32:
    random = np.random.Generator(np.random.Philox(3))
    shape = (64, 1024)
    if kind == "normal":
        values = random.standard_normal(shape)
    elif kind == "heavy-tailed":
        values = random.standard_t(3, shape)
    elif kind == "columns of outliers":
        values = random.standard_normal(shape) * np.where(random.random(shape[1]) < 0.02, 12, 1)
    else:
        values = random.standard_normal(shape) + 3
    return (values * 0.02).astype(np.float32)


def columns() -> F32:
    random = np.random.Generator(np.random.Philox(4))
    return (random.standard_normal(1024) ** 2 * np.where(random.random(1024) < 0.03, 30, 1)).astype(np.float32)


def error(values: F32, decoded: F32, weights: F32) -> float:
    squares = [(weights * v.astype(np.float64) ** 2).sum() for v in (decoded - values, values)]
    return float(np.sqrt(squares[0] / squares[1]))


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "columns of outliers", "all above zero"])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_errors_are_no_larger_than_ggml_makes(format: QuantFormat, kind: str) -> None:
    values, importance = rows(kind), columns()
    plain = format.dequantize(format.quantize(values), 1024)
    weighted = format.dequantize(format.quantize_weighted(values, importance), 1024)
    expected = GGML[format.name][kind]
    assert error(values, plain, np.ones_like(importance)) <= expected["plain"]
    assert error(values, weighted, importance) <= expected["weighted"]
    assert error(values, weighted, importance) < error(values, plain, importance)


@pytest.mark.parametrize("constant", [0, -0.5, 0.5])
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_constant_sub_block_does_not_harm_the_others(format: QuantFormat, constant: float) -> None:
    values = rows("normal") * np.float32(10)
    plain = error(values, format.dequantize(format.quantize(values), 1024), np.ones(1024, np.float32))
    beside = np.where(np.arange(1024) % 256 < 32, np.float32(constant), values)
    found = format.dequantize(format.quantize(beside), 1024)
    others = np.arange(1024) % 256 >= 32
    assert error(beside[:, others], found[:, others], np.ones(others.sum(), np.float32)) < 1.1 * plain


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_importance_of_zero_is_no_importance(format: QuantFormat) -> None:
    values = rows("normal")[:2]
    np.testing.assert_array_equal(
        format.dequantize(format.quantize_weighted(values, np.zeros(1024, np.float32)), 1024),
        format.dequantize(format.quantize_weighted(values, np.full(1024, 7, np.float32)), 1024),
    )


def test_fields_come_back() -> None:
    random = np.random.default_rng(2)
    for run, bits in ((32, 1), (32, 2), (32, 4), (64, 4)):
        fields = random.integers(0, 1 << bits, (3, 256)).astype(np.uint8)
        np.testing.assert_array_equal(spread(pack(fields, run, bits), run, bits), fields)
    scales, mins = random.integers(0, 64, (2, 3, 8)).astype(np.uint8)
    np.testing.assert_array_equal(scales_and_mins(pack_scales_and_mins(scales, mins)), (scales, mins))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_pieces_of_a_matrix_give_its_bytes(format: QuantFormat) -> None:
    """More blocks than are worked on at a time, whose borders lie within rows."""
    values, importance = np.tile(rows("normal")[:, :768], (2, 1)), columns()[:768]
    assert values.size // 256 > CHUNK
    whole = format.quantize_weighted(values, importance)
    pieces = [format.quantize_weighted(values[i : i + 1], importance) for i in (0, 85, 86, 127)]
    np.testing.assert_array_equal(whole[[0, 85, 86, 127]], np.concatenate(pieces))
    np.testing.assert_array_equal(whole[:64], whole[64:])
