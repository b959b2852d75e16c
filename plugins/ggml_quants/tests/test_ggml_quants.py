"""The adapter over the `gguf` package, and the package itself against layouts written out value by value."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from sis_ggml_quants.adapter import FORMATS, Decoded

from sis_core.errors import FormatError
from sis_core.quant import QuantFormat
from sis_core.testing import check_quant_format

f32 = np.float32
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # ggml's kvalues_iq4nl
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)  # OCP Microscaling Formats 1.0, table 5


def halves(block: bytes, *offsets: int) -> list[np.float32]:
    return [f32(struct.unpack_from("<e", block, offset)[0]) for offset in offsets]


def nibble(block: bytes, start: int, i: int) -> int:
    return block[start + i % 16] >> (i // 16 * 4) & 15


def q4_1(block: bytes) -> list[np.float32]:
    d, m = halves(block, 0, 2)
    return [d * f32(nibble(block, 4, i)) + m for i in range(32)]


def q5_0(block: bytes) -> list[np.float32]:
    (d,), (high,) = halves(block, 0), struct.unpack_from("<I", block, 2)
    return [d * f32((nibble(block, 6, i) | (high >> i & 1) << 4) - 16) for i in range(32)]


def q5_1(block: bytes) -> list[np.float32]:
    (d, m), (high,) = halves(block, 0, 2), struct.unpack_from("<I", block, 4)
    return [d * f32(nibble(block, 8, i) | (high >> i & 1) << 4) + m for i in range(32)]


def iq4_nl(block: bytes) -> list[np.float32]:
    (d,) = halves(block, 0)
    return [d * f32(IQ4[nibble(block, 2, i)]) for i in range(32)]


def iq4_xs(block: bytes) -> list[np.float32]:
    (d,), (top,) = halves(block, 0), struct.unpack_from("<H", block, 2)
    values = []
    for i in range(256):
        j = i // 32
        scale = (block[4 + j // 2] >> (j % 2 * 4) & 15 | (top >> (2 * j) & 3) << 4) - 32
        values.append(d * f32(scale) * f32(IQ4[nibble(block, 8 + 16 * j, i % 32)]))
    return values


def mxfp4(block: bytes) -> list[np.float32]:
    codes = [nibble(block, 1, i) for i in range(32)]
    return [f32(2.0 ** (block[0] - 127) * E2M1[code & 7] * (-1 if code & 8 else 1)) for code in codes]


def tq2_0(block: bytes) -> list[np.float32]:
    (d,) = halves(block, 64)
    return [d * f32((block[i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3) - 1) for i in range(256)]


BY_HAND: dict[str, Callable[[bytes], list[np.float32]]] = {
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "MXFP4": mxfp4,
    "TQ2_0": tq2_0,
}


def by_name(name: str) -> QuantFormat:
    return next(format for format in FORMATS if format.name == name)


@pytest.mark.parametrize("name", BY_HAND)
def test_decodes_as_written_out(name: str) -> None:
    format = by_name(name)
    golden = Path(__file__).parents[3] / "tests" / "goldens" / "formats" / f"{name}.json"
    data = np.frombuffer(bytes.fromhex(json.loads(golden.read_text())["rows"]), np.uint8)
    blocks = data.reshape(-1, format.type_size)
    expected = [BY_HAND[name](block.tobytes()) for block in blocks]
    np.testing.assert_array_equal(format.dequantize(blocks, format.block_size), np.array(expected))


def test_digits_in_base_3_are_unpacked() -> None:
    """Every byte, also those that stand for no five digits: the numbers of the package's decoder."""
    format = by_name("TQ1_0")
    blocks = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 54, axis=1)
    blocks[:, 52:] = np.array([0.75], "<f2").view(np.uint8)
    assert format.layout is not None
    values = format.layout.values(format.unpack(blocks, 256))
    np.testing.assert_array_equal(values, gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.TQ1_0))


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_contract(format: QuantFormat) -> None:
    check_quant_format(format)


def test_every_type_of_the_package_is_here_or_in_a_plugin_of_its_own() -> None:
    elsewhere = {"F32", "F16", "BF16", "Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
    decodable = {type.name for type in gguf.quants._type_traits}
    assert {format.name for format in FORMATS} == decodable - elsewhere


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_the_table_agrees_with_the_package(format: QuantFormat) -> None:
    qtype = gguf.GGMLQuantizationType[format.name]
    assert format.type_id == qtype
    assert (format.block_size, format.type_size) == gguf.GGML_QUANT_SIZES[qtype]
    try:
        gguf.quants.quantize(np.ones((1, format.block_size), np.float32), qtype)
    except NotImplementedError:
        assert not format.can_quantize
    else:
        assert format.can_quantize


def test_an_old_package() -> None:
    with pytest.raises(FormatError, match=r"IQ9_XL: the installed gguf package .* `pip install -U gguf`"):
        Decoded("IQ9_XL", 999, 32, 16).dequantize(np.zeros((1, 16), np.uint8), 32)


def test_the_package_is_imported_late() -> None:
    code = "import sys, sis_ggml_quants as s; s.sis_register_quant_formats(); print('gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
