"""Float formats and weights: a view of a weight shows what a slice of the decoded matrix shows."""

from __future__ import annotations

import struct
from math import prod

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sis_core.arrays import F32, U8
from sis_core.errors import ClosedError, FormatError
from sis_core.quant import PANEL_VALUES, BF16Format, BlockFormat, F16Format, F32Format, QuantFormat, Weight

BITS = arrays.arrays(np.uint32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))


class Pairs(BlockFormat):
    """Two bytes a block: 0 ... 255 each, with no scale. Small enough to see through."""

    name, block_size, type_size = "PAIRS", 2, 2

    def dequantize_blocks(self, blocks: U8) -> F32:
        return blocks.astype(np.float32)

    def quantize_blocks(self, values: F32) -> U8:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def weight(shape: tuple[int, ...], format: QuantFormat | None = None) -> tuple[Weight, F32]:
    """A weight of whole numbers 0 ... 255 and the same as an array."""
    values = (np.arange(prod(shape)) * 7 % 256).astype(np.float32).reshape(shape)
    return Weight.from_array("w", values, format or Pairs()), values


# -- float formats ------------------------------------------------------------------------------------------------


@given(BITS)
def test_f32_is_the_bytes_themselves(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    rows = F32Format().quantize(values)
    np.testing.assert_array_equal(rows.view("<u4"), bits)
    np.testing.assert_array_equal(F32Format().dequantize(rows, bits.shape[1]).view(np.uint32), bits)


@given(BITS)
def test_f16_rounds_as_python_does(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    decoded = F16Format().dequantize(F16Format().quantize(values), bits.shape[1])
    for value, found in zip(values.ravel().tolist(), decoded.ravel().tolist(), strict=True):
        try:
            (expected,) = struct.unpack("<e", struct.pack("<e", value))
        except OverflowError:
            expected = float("inf") if value > 0 else float("-inf")
        assert found == expected or (found != found and value != value)


@given(BITS)
def test_bf16_is_what_the_gguf_package_writes(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    rows = BF16Format().quantize(values)
    np.testing.assert_array_equal(rows, gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16))
    decoded = BF16Format().dequantize(rows, bits.shape[1])
    expected = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType.BF16)
    np.testing.assert_array_equal(decoded.view(np.uint32), expected.view(np.uint32))


def test_bf16_rounds_to_even() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xFF7FFFFF, 0x7F800001, 0xFFFFFFFF, 1], np.uint32)
    rows = BF16Format().quantize(bits.view(np.float32)[None])
    assert [hex(half) for half in rows.view("<u2")[0]] == [
        "0x3f80", "0x3f80", "0x3f82", "0x3f81", "0xff80", "0x7fc0", "0xffff", "0x0",
    ]  # fmt: skip


@given(arrays.arrays(np.uint16, (3, 5)))
def test_every_half_survives_both_ways(bits: np.ndarray) -> None:
    for format in (F16Format(), BF16Format()):
        rows = np.ascontiguousarray(bits, "<u2").view(np.uint8)
        values = format.dequantize(rows, 5)
        again = format.quantize(values).view("<u2")
        np.testing.assert_array_equal(np.where(np.isnan(values), 0, again), np.where(np.isnan(values), 0, bits))


@pytest.mark.parametrize("format", [F32Format(), F16Format(), BF16Format()], ids=str)
def test_bytes_at_odd_addresses(format: QuantFormat) -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    data = b"x" + format.quantize(values).tobytes()
    rows = np.frombuffer(data, np.uint8)[1:].reshape(2, -1)
    decoded = format.dequantize(rows, 6)
    np.testing.assert_array_equal(decoded, values)
    assert decoded.flags.aligned  # native code is handed its address


def test_f32_is_decoded_without_a_copy() -> None:
    rows = np.arange(8, dtype="<f4").view(np.uint8).reshape(2, 16)
    assert np.shares_memory(F32Format().dequantize(rows, 4), rows)


# -- the base classes ---------------------------------------------------------------------------------------------


def test_size() -> None:
    assert Pairs().row_bytes(6) == 6
    assert BF16Format().bits_per_weight == 16
    assert not Pairs().uses_importance
    assert Pairs().can_quantize
    assert repr(Pairs()) == "<format PAIRS>"


@pytest.mark.parametrize("n_cols", [-2, 0, 3])
def test_a_row_that_is_not_whole_blocks(n_cols: int) -> None:
    with pytest.raises(FormatError, match=f"PAIRS: a row of {n_cols} values is not a whole number of blocks of 2"):
        Pairs().row_bytes(n_cols)


def test_inputs_of_another_shape_or_type_are_refused() -> None:
    format = Pairs()
    with pytest.raises(
        FormatError, match=r"PAIRS: decodes uint8 \(n_rows, 4\) for rows of 4 values, not uint8 \(2, 6\)"
    ):
        format.dequantize(np.zeros((2, 6), np.uint8), 4)
    with pytest.raises(FormatError, match=r"not int8 \(2, 4\)"):
        format.dequantize(np.zeros((2, 4), np.int8), 4)
    with pytest.raises(FormatError, match=r"PAIRS: encodes float32 \(n_rows, n_cols\), not float64 \(2, 4\)"):
        format.quantize(np.zeros((2, 4)))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"not float32 \(4,\)"):
        format.quantize(np.zeros(4, np.float32))
    with pytest.raises(FormatError, match="a row of 3 values is not"):
        format.quantize(np.zeros((2, 3), np.float32))


def test_a_format_without_an_encoder() -> None:
    class Decoder(BlockFormat):
        name, block_size, type_size = "READ_ONLY", 2, 2

        def dequantize_blocks(self, blocks: U8) -> F32:
            return blocks.astype(np.float32)

    assert not Decoder().can_quantize
    with pytest.raises(FormatError, match=r"READ_ONLY: has no encoder\. It can be read only"):
        Decoder().quantize(np.zeros((1, 2), np.float32))


def test_importance_is_optional_for_authors() -> None:
    class Weighing(Pairs):
        def quantize_weighted(self, values: F32, importance: F32) -> U8:
            return self.quantize(values * importance)

    values = np.array([[3, 5]], np.float32)
    importance = np.array([1, 2], np.float32)
    assert Pairs().quantize_weighted(values, importance).tolist() == [[3, 5]]
    assert Weighing().uses_importance
    assert Weighing().quantize_weighted(values, importance).tolist() == [[3, 10]]


# -- weights ------------------------------------------------------------------------------------------------------


@st.composite
def slices(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Views of a matrix of 9 rows and 12 columns, one after the other."""
    n_rows, n_cols, chosen = 9, 12, []
    for _ in range(draw(st.integers(0, 4))):
        axis = draw(st.sampled_from(["rows", "cols"]))
        step, n = (1, n_rows) if axis == "rows" else (2, n_cols)
        start = draw(st.integers(0, n // step - 1)) * step
        stop = draw(st.integers(start // step + 1, n // step)) * step
        chosen.append((axis, start, stop))
        n_rows, n_cols = (stop - start, n_cols) if axis == "rows" else (n_rows, stop - start)
    return chosen


@given(slices(), st.data())
def test_views_are_slices(chosen: list[tuple[str, int, int]], data: st.DataObject) -> None:
    view, values = weight((9, 12))
    for axis, start, stop in chosen:
        view = getattr(view, axis)(start, stop)
        values = values[start:stop] if axis == "rows" else values[:, start:stop]
    assert view.shape == values.shape
    assert view.nbytes == values.size
    np.testing.assert_array_equal(view.raw, values)
    np.testing.assert_array_equal(view.dequantize(), values)
    np.testing.assert_array_equal(np.concatenate([panel for _, panel in view.panels()]), values)
    indices = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=5))
    np.testing.assert_array_equal(view.take(np.array(indices, np.int64)), values[indices])


def test_views_share_the_bytes() -> None:
    whole, _ = weight((9, 12))
    cut = whole.rows(2, 7).cols(4, 10)
    assert np.shares_memory(cut.raw, whole.raw)
    assert cut.raw.strides == (12, 1)
    assert repr(cut) == "<weight w PAIRS (5, 6)>"


def test_experts() -> None:
    stack, values = weight((3, 4, 6))
    for i in range(3):
        assert stack.expert(i).shape == (4, 6)
        np.testing.assert_array_equal(stack.expert(i).dequantize(), values[i])
    np.testing.assert_array_equal(stack.cols(2, 4).expert(1).dequantize(), values[1, :, 2:4])
    np.testing.assert_array_equal(stack.dequantize(), values)
    for i in (-1, 3):
        with pytest.raises(FormatError, match=f"w: has 3 experts, not an expert {i}"):
            stack.expert(i)


@pytest.mark.parametrize("shape", [(6,), (1,), (2, 3, 4, 6)])
def test_vectors_and_deeper_stacks(shape: tuple[int, ...]) -> None:
    view, values = weight(shape, F32Format())
    np.testing.assert_array_equal(view.dequantize(), values)
    assert view.n_rows == prod(shape[:-1])


def test_a_scalar_is_a_vector_of_one() -> None:
    data = np.array([2.5], "<f4").view(np.uint8)
    assert Weight.of("s", F32Format(), (), lambda: data).dequantize().tolist() == [2.5]


def test_panels_are_of_bounded_size() -> None:
    view, values = weight((9, PANEL_VALUES // 4))
    starts, panels = zip(*view.panels(), strict=True)
    assert starts == (0, 4, 8)
    assert [panel.shape[0] for panel in panels] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(panels), values)


def test_a_row_longer_than_a_panel_is_a_panel() -> None:
    view, _ = weight((2, PANEL_VALUES + 2))
    assert [panel.shape for _, panel in view.panels()] == [(1, PANEL_VALUES + 2)] * 2


def test_slices_that_do_not_fit() -> None:
    view, _ = weight((9, 12))
    for start, stop in ((0, 10), (-1, 3), (4, 4), (5, 3)):
        with pytest.raises(FormatError, match=f"w: has 9 rows, not rows {start} to {stop}"):
            view.rows(start, stop)
    for start, stop in ((0, 14), (1, 4), (2, 5), (4, 4), (-2, 4)):
        with pytest.raises(FormatError, match=f"w: columns {start} to {stop} of 12 are not whole blocks of 2"):
            view.cols(start, stop)
    with pytest.raises(FormatError, match="a row of 5 values"):
        Weight.of("w", Pairs(), (3, 5), lambda: np.zeros(15, np.uint8))


def test_bytes_are_asked_for_late_and_after_close_refused() -> None:
    def closed() -> U8:
        raise ClosedError("the model is closed", where="w")

    view = Weight.of("w", Pairs(), (3, 4), closed).rows(1, 2).cols(0, 2)
    with pytest.raises(ClosedError, match="w: the model is closed"):
        view.dequantize()


# -- formats that misbehave -----------------------------------------------------------------------------------------


class Misbehaving(Pairs):
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        if self.fault == "shape":
            return np.zeros((len(rows), n_cols + 1), np.float32)
        if self.fault == "dtype":
            return np.zeros((len(rows), n_cols), np.float64)
        if self.fault == "write":
            rows[0, 0] = 1
        raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"blk\.0\.ffn_up: format PAIRS returned float32 \(3, 5\), not float32 \(3, 4\)"),
        ("dtype", r"blk\.0\.ffn_up: format PAIRS returned float64 \(3, 4\), not float32 \(3, 4\)"),
        ("write", r"blk\.0\.ffn_up: format PAIRS failed to decode: ValueError: .*read-only"),
        ("raise", r"blk\.0\.ffn_up: format PAIRS failed to decode: ZeroDivisionError: division by zero"),
    ],
)
def test_messages_name_tensor_format_and_fault(fault: str, message: str) -> None:
    data = np.zeros(12, np.uint8)
    view = Weight.of("blk.0.ffn_up", Misbehaving(fault), (3, 4), lambda: data)
    with pytest.raises(FormatError, match=message) as caught:
        view.dequantize()
    assert "check it with sis_core.testing.check_quant_format" in str(caught.value)
    assert not data.any()


def test_weights_cannot_be_written_to() -> None:
    data = np.zeros(12, np.uint8)
    view = Weight.of("w", Pairs(), (3, 4), lambda: data)
    with pytest.raises(ValueError, match="read-only"):
        view.raw[0] = 1
    assert data.flags.writeable  # the owner's array is as it was


def test_values_that_a_format_cannot_hold() -> None:
    values = np.ones((2, 3), np.float32)
    F32Format().check_values(values, finite=True)
    for wrong in (np.nan, -np.inf):
        values[1, 2] = wrong
        F32Format().check_values(values)
        with pytest.raises(FormatError, match="F32: cannot hold NaN or infinity"):
            F32Format().check_values(values, finite=True)
