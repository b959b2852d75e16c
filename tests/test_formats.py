"""Every installed format: golden blocks, GGUF's numbers, one owner each, and what happens where one misbehaves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError, package_for
from sis_core.quant import BF16Format, BlockFormat, F16Format, F32Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.testing import check_quant_format
from sis_core.workbench.quantizer.encode import encode

GOLDENS = {path.stem: path for path in (Path(__file__).parent / "goldens" / "formats").glob("*.json")}
REGISTRY = Registry.load()
FORMATS: dict[str, QuantFormat] = {format.name: format for format in REGISTRY.records("quant_formats")}
IN_GGUF = {name: format for name, format in FORMATS.items() if format.type_id is not None}


def array(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), dtype)


@pytest.mark.parametrize("name", sorted(GOLDENS))
def test_golden_blocks(name: str) -> None:
    """The floats that ggml's C decoder gives, bit for bit."""
    golden = json.loads(GOLDENS[name].read_text())
    rows, values = array(golden["rows"], "u1"), array(golden["values"], "<f4")
    format = FORMATS[name]
    n_cols = len(values) // 2
    decoded = format.dequantize(rows.reshape(2, -1), n_cols)
    np.testing.assert_array_equal(decoded.reshape(-1), values)


ENCODED = [
    (name, case)
    for name, path in sorted(GOLDENS.items())
    if name != "Q2_0"  # whose scales are fitted here
    for case in json.loads(path.read_text())["encoded"]
]


@pytest.mark.parametrize(("name", "case"), ENCODED)
def test_golden_encodings(name: str, case: str) -> None:
    """The bytes that ggml's C encoder writes."""
    values, rows = json.loads(GOLDENS[name].read_text())["encoded"][case]
    np.testing.assert_array_equal(FORMATS[name].quantize(array(values, "<f4")[None])[0], array(rows, "u1"))


@pytest.mark.parametrize("name", sorted(set(IN_GGUF) - {"F32", "F16", "BF16"}))
def test_every_format_of_gguf_has_golden_blocks(name: str) -> None:
    assert name in GOLDENS


@pytest.mark.parametrize("format", [F32Format(), F16Format(), BF16Format()], ids=str)
def test_float_formats_keep_the_contract(format: QuantFormat) -> None:
    check_quant_format(format)


@pytest.mark.parametrize("name", sorted(set(IN_GGUF) - {"Q2_0"}))  # newer than the package
def test_numbers_are_those_of_gguf(name: str) -> None:
    format = IN_GGUF[name]
    qtype = gguf.GGMLQuantizationType[name]
    assert format.type_id == qtype
    assert (format.block_size, format.type_size) == gguf.GGML_QUANT_SIZES[qtype]


def test_each_format_has_one_owner() -> None:
    assert REGISTRY.clashes("quant_formats") == {}


@pytest.mark.parametrize("entry", REGISTRY.entries("quant_formats"), ids=lambda entry: entry.record.name)
def test_the_catalogue_names_the_owner(entry: object) -> None:
    record, plugin = entry.record, entry.plugin  # type: ignore[attr-defined]
    if record.type_id is None or plugin == "core":
        return
    assert package_for("quant_formats", record.name) == f"sis-{plugin}"
    assert package_for("quant_formats", f"type {record.type_id}") == f"sis-{plugin}"


# -- encoders that misbehave: what `sis quantize` says ----------------------------------------------------------------


class Misbehaving(BlockFormat):
    name, block_size, type_size = "ODD", 2, 2

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def dequantize_blocks(self, blocks: U8) -> F32:
        return np.full((len(blocks), 2), np.inf if self.fault == "infinite" else 1, np.float32)

    def quantize(self, values: F32) -> U8:
        rows = np.zeros(values.shape, np.uint8)
        if self.fault == "write":
            values *= 2
        if self.fault == "fail":
            raise ZeroDivisionError("division by zero")
        if self.fault == "dtype":
            return rows.astype(np.int64)
        return rows[:, 1:] if self.fault == "shape" else rows


@pytest.mark.parametrize(
    ("fault", "value", "message"),
    [
        ("shape", 1, r"tensor w: the format ODD returned uint8 \(3, 3\), not uint8 \(3, 4\)"),
        ("dtype", 1, r"tensor w: the format ODD returned int64 \(3, 4\), not uint8 \(3, 4\)"),
        ("infinite", 9e4, r"tensor w: row 0 has values too large for ODD"),
        ("fail", 1, r"tensor w: the format ODD failed on rows 0 to 3: ZeroDivisionError"),
        ("write", 1, r"tensor w: the format ODD failed on rows 0 to 3: ValueError: .*read-only"),
        ("", float("nan"), r"tensor w: row 0, column 0 is nan"),
    ],
)
def test_encoding_names_tensor_format_and_fault(fault: str, value: float, message: str) -> None:
    weight = Weight.from_array("w", np.full((3, 4), value, np.float32))
    with ThreadPoolExecutor(1) as pool, pytest.raises(FormatError, match=message):
        list(encode(weight, Misbehaving(fault), None, pool, 1))
