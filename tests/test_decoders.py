"""Rung 2 on every instruction set: linears that decode rows as they go, by a format's own function."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.library import address
from sis_core.backends.native.weights import Store
from sis_core.quant import QuantFormat, Weight
from sis_core.testing.kernels import kind_of_this_machine, on_each_rung

ISAS = {"x86": ("portable", "avx2", "avx512_vnni"), "neon": ("portable", "neon", "neon_dotprod", "neon_i8mm")}
KIND = kind_of_this_machine()
if KIND is None:
    pytest.skip("no native backend works on this machine", allow_module_level=True)
backend = on_each_rung(KIND, ISAS[KIND.name])

DECODE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
)  # fmt: skip


class Half(QuantFormat):
    """Rows of any length: signed bytes in halves, with a decoder of its own."""

    name, block_size, type_size = "HALF", 1, 1

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return rows.view(np.int8).astype(np.float32) / np.float32(2)

    @property
    def decoder(self) -> int | None:
        return ctypes.cast(half_decode, ctypes.c_void_p).value


@DECODE
def half_decode(rows: int, row_bytes: int, n_rows: int, n_cols: int, out: int) -> None:
    for r in range(n_rows):
        source = (ctypes.c_int8 * n_cols).from_address(rows + r * row_bytes)
        (ctypes.c_float * n_cols).from_address(out + r * n_cols * 4)[:] = [value / 2 for value in source]


@pytest.mark.parametrize("n_cols", [1, 3, 31, 130, 1280])
def test_rows_that_are_not_whole_vectors(backend: NativeBackend, n_cols: int) -> None:
    random = np.random.default_rng(2)
    raw = random.integers(0, 256, (21, n_cols), dtype=np.uint8)
    weight = Weight.of("w", Half(), (21, n_cols), lambda: raw.reshape(-1))
    linear, threaded = (backend.linear(weight, BackendOptions(n_threads=n)) for n in (None, 3))
    assert linear is not None
    assert threaded is not None
    x = random.integers(-9, 9, (31, n_cols)).astype(np.float32)
    whole = linear(x)
    assert np.array_equal(whole, x @ weight.dequantize().T)  # small halves: exact in any order
    assert np.array_equal(threaded(x), whole)
    for n in (1, 2, 3, 4, 5, 7, 12, 13):  # a row's result does not depend on its neighbours
        assert np.array_equal(linear(x[-n:]), whole[-n:]), n


def test_what_stays_packed(backend: NativeBackend) -> None:
    """Rows are copied as they are where weights are packed, so that no file stays mapped, and else read in place."""
    raw = np.random.default_rng(3).integers(0, 256, 32 * 256, dtype=np.uint8)
    weight = Weight.of("w", Half(), (32, 256), lambda: raw)
    for pack, n_bytes in ((True, weight.nbytes), (False, 0)):
        store = Store(backend.library(), 1, pack)
        assert (store.format_of(weight), store.nbytes([weight])) == (abi.DECODED, n_bytes)
        store.bind([weight], None)
        bound = store[weight]
        assert (bound.format, bound.tiles, bound.raw == address(weight.raw)) == (abi.DECODED, None, not pack)
        assert ctypes.string_at(bound.raw, weight.nbytes) == weight.raw.tobytes()
