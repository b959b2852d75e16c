"""Scales that are powers of two, from 2^-127 to 2^128, against the gguf package's decoder: exact, or refused."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from attrs import evolve
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from sis_core import Registry
from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend
from sis_core.errors import FormatError
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat, Weight
from sis_core.sides import Side
from sis_core.testing.kernels.weights import taken

REGISTRY = Registry.load()
BACKEND = next(
    backend
    for backend in REGISTRY.records("backends")
    if isinstance(backend, NativeBackend) and backend.idle_reason() is None
)
MXFP4: QuantFormat = REGISTRY.get("quant_formats", "MXFP4")
NORMAL = 2.0**-126  # the least number that is not denormal: units for matrices take smaller ones for zero


class Declared(BlockFormat):
    """MXFP4 by its layout alone."""

    name, block_size, type_size, layout = "DECLARED", 32, 17, MXFP4.layout


def blocks(exponents: list[int], seed: int) -> U8:
    """``(n, 17)`` blocks with these scales and random codes."""
    found = np.random.default_rng(seed).integers(0, 256, (len(exponents), 17), np.uint8)
    found[:, 0] = exponents
    return found


def weight_of(format: QuantFormat, rows: U8) -> Weight:
    return Weight.of("w", format, (len(rows), rows.shape[1] // 17 * 32), lambda: rows.reshape(-1))


def decoded(rows: U8) -> F32:
    with np.errstate(over="ignore"):
        return np.asarray(quants.dequantize(rows, gguf.GGMLQuantizationType.MXFP4), np.float32)


def check(format: QuantFormat, rows: U8) -> None:
    """Values, rows that are taken, and products, of few rows and of many."""
    wanted, weight = decoded(rows), weight_of(format, rows)
    np.testing.assert_array_equal(weight.dequantize(), wanted)
    store = BACKEND._store(BackendOptions(n_threads=1))
    numbers = np.arange(len(rows), dtype=np.int32)
    np.testing.assert_array_equal(taken(BACKEND.library(), weight, numbers, store.table(weight)), wanted)
    linear = BACKEND.linear(weight, BackendOptions(n_threads=1))
    assert linear is not None
    x = np.random.default_rng(1).integers(-127, 128, (40, weight.n_cols)).astype(np.float32)
    x[:, ::32] = 127  # so that 8 bits hold them exactly
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.abs(x).astype(np.float64) @ np.abs(wanted).astype(np.float64).T
        exact = x.astype(np.float64) @ wanted.astype(np.float64).T
    fits = sizes < 1e38  # else sums are infinite in float32, or on the way there
    for n, relative, lost in ((1, 1e-6, 0.0), (len(x), 4e-3, NORMAL * np.abs(x).sum(axis=1).max())):
        with np.errstate(invalid="ignore"):  # infinite less infinite, where it does not fit
            error = np.abs(linear(x[:n]) - exact[:n])
        assert (error <= relative * sizes[:n] + lost)[fits[:n]].all(), n


@pytest.mark.parametrize("format", [MXFP4, Declared()], ids=repr)
def test_every_exponent(format: QuantFormat) -> None:
    check(format, blocks(list(range(256)), 0))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 255), min_size=8, max_size=8), st.integers(0, 99), st.booleans())
def test_exponents_side_by_side(exponents: list[int], seed: int, declared: bool) -> None:
    check(Declared() if declared else MXFP4, blocks(exponents, seed).reshape(4, -1))


def test_scales_that_tiles_cannot_hold_are_refused() -> None:
    """2^-127 times a number of the row is no bfloat16 any more; beside it, nothing is as small as to be refused."""
    rows = blocks([0] * 32, 0).reshape(16, -1)
    side = {"r": Side(np.full(16, 1e-3, np.float32), "row")}
    small = evolve(weight_of(Declared(), rows), side=side)
    with pytest.raises(FormatError, match=r"w: has scales or minima up to .*e-42, which bfloat16 cannot hold"):
        BACKEND.linear(small, BackendOptions(n_threads=1))
    rows.reshape(-1, 17)[:, 1:] = 0
    linear = BACKEND.linear(small, BackendOptions(n_threads=1))
    assert linear is not None
    assert not linear(np.ones((2, 64), np.float32)).any()


def test_scales_that_halves_cannot_hold_are_refused_but_where_all_is_zero() -> None:
    layout = Layout(8, 32, Scale("f32", 0), zero=0x88, codes=Bits(4, 8))
    format = type("Small", (BlockFormat,), {"name": "S", "block_size": 32, "type_size": 36, "layout": layout})()
    rows = np.full((16, 36), 0x89, np.uint8)
    rows[:, :4] = np.array([1e-9], "<f4").view(np.uint8)
    weight = Weight.of("w", format, (16, 32), lambda: rows.reshape(-1))
    with pytest.raises(FormatError, match="up to 1e-09, which half precision cannot hold"):
        BACKEND.linear(weight, BackendOptions(n_threads=1))
    rows[:, 4:] = 0x88
    linear = BACKEND.linear(weight, BackendOptions(n_threads=1))
    assert linear is not None
    assert not linear(np.ones((1, 32), np.float32)).any()
