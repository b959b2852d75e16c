"""Tables of numbers in tiles, which have 8 bits there: that of a matrix, and those of its rows."""

from __future__ import annotations

import numpy as np
import pytest
from test_native_layouts import (
    BACKEND,
    FORMATS,
    HALVES,
    ODD,
    OPTIONS,
    Rows,
    blocks,
    check_product,
    rows_of,
    way,
    weight_of,
)

from sis_core.arrays import F32
from sis_core.layout import Layout, Scale
from sis_core.quant import Weight


def test_a_table_that_8_bits_would_spoil_is_not_packed() -> None:
    """One number far from the others, which no weight needs: it takes all the steps."""
    far = (*np.multiply(ODD[:-1], 1 / 30), 1.0)
    weight = weight_of(blocks("far", Layout(4, 64, Scale("f16", 0), table=far, codes=HALVES), 64, 36), 16, 256)
    assert "decoded at load to 16 bits: 8 bits would round its table by 1.6 times the error" in way(weight)
    check_product(weight)


def of_tables(tables: F32) -> Weight:
    """A weight with a scale of one and a table of its own for each row."""
    rows = rows_of(format := FORMATS["a table for each row"][0], len(tables), 256)
    rows[:, :68] = np.hstack([np.ones((len(tables), 1)), tables]).astype("<f4").view(np.uint8)
    data = rows.reshape(-1)
    return Weight.of("w", format, (len(tables), 256), lambda: data)


def test_tables_of_more_than_16_numbers_turn_codes_into_bytes() -> None:
    format = Rows(Layout(5, 32, Scale("f32", per="row"), table="row"), 4 + 128)
    rows = np.random.default_rng(2).integers(0, 256, (16, 132 + 256), np.uint8)
    tables = np.tile(np.arange(-16, 16), (16, 1))
    rows[:, :132] = np.hstack([np.ones((16, 1)), tables]).astype("<f4").view(np.uint8)
    data = rows.reshape(-1)
    weight = Weight.of("w", format, (16, 256), lambda: data)
    assert "; each code is the byte that it stands for: tables of rows have tiles for at most 4 bits" in way(weight)
    check_product(weight)


def test_whole_tables_of_rows_are_exact() -> None:
    whole = np.random.default_rng(3).integers(-100, 100, (20, 16)).astype(np.float32)
    weight = of_tables(whole)
    assert way(weight) == "packed into tiles as its layout says"
    x = np.full((1, 256), 127, np.float32)  # activations that 8 bits hold exactly
    linear = BACKEND.linear(weight, OPTIONS)
    assert linear is not None
    np.testing.assert_allclose(linear(x), x @ weight.dequantize().T, rtol=1e-5)


def test_tables_of_rows_that_8_bits_would_spoil_are_decoded(caplog: pytest.LogCaptureFixture) -> None:
    """Seen in rows that are looked at before, or when one comes along that was not."""
    far = np.array((*np.multiply(ODD[:-1], 1 / 30), 1.0), np.float32)
    weight = of_tables(np.tile(far, (40, 1)))
    assert "decoded at load to 16 bits: 8 bits would round a row's table by" in way(weight)
    check_product(weight)
    tables = np.tile(np.asarray(ODD, np.float32), (40, 1))
    assert "packed" in way(of_tables(tables))
    for spoilt in (far, np.where(far > 0.5, np.inf, far)):
        tables[1] = spoilt
        weight = of_tables(tables)
        assert "packed" in way(weight)
        caplog.clear()
        linear = BACKEND.linear(weight, OPTIONS)
        assert linear is not None
        assert "w is decoded to 16 bits, in more memory than was planned: 8 bits would round" in caplog.text
        x = np.random.default_rng(1).standard_normal((5, 256)).astype(np.float32)
        with np.errstate(invalid="ignore"):
            found, wanted = linear(x), x @ weight.dequantize().T
        kept = np.isfinite(wanted)
        np.testing.assert_allclose(found[kept], wanted[kept], atol=0.01 * np.abs(wanted[kept]).max())
        assert not np.isfinite(found[~kept]).any()
