"""Rung 2 on every instruction set: the library's decoders against the codecs, and linears that decode as they go."""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest

from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.native import NativeBackend, abi
from sis_core.backends.native.library import address
from sis_core.backends.native.weights import Store
from sis_core.quant import QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.testing import check_backend
from sis_core.testing.kernels import kind_of_this_machine, on_each_rung

ISAS = {"x86": ("portable", "avx2", "avx512_vnni"), "neon": ("portable", "neon", "neon_dotprod", "neon_i8mm")}
FORMATS = {"Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "IQ4_NL": (0,), "Q5_K": (0, 2)}  # where the scales lie
REGISTRY = Registry.load()
KIND = kind_of_this_machine()
if KIND is None:
    pytest.skip("no native backend works on this machine", allow_module_level=True)
backend = on_each_rung(KIND, ISAS[KIND.name])

DECODE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
)  # fmt: skip


def format_of(name: str) -> QuantFormat:
    found: QuantFormat = REGISTRY.get("quant_formats", name)
    return found


def random_rows(format: QuantFormat, n_rows: int, n_cols: int) -> U8:
    """Random bytes; scales of all sizes, the smallest half-precision numbers among them."""
    random = np.random.default_rng(5)
    raw = random.integers(0, 256, (n_rows, format.row_bytes(n_cols)), dtype=np.uint8)
    blocks = raw.reshape(-1, format.type_size)
    for at in FORMATS[format.name]:
        scales = (random.standard_normal(len(blocks)) * 10.0 ** random.integers(-7, 1, len(blocks))).astype("<f2")
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    return raw


def weight_of(name: str, n_rows: int, n_cols: int) -> Weight:
    format = format_of(name)
    raw = random_rows(format, n_rows, n_cols).reshape(-1)
    return Weight.of("w", format, (n_rows, n_cols), lambda: raw)


@pytest.mark.parametrize("name", FORMATS)
def test_decoders_give_what_the_codecs_give(backend: NativeBackend, name: str) -> None:
    n_rows, n_cols, format = 7, 768, format_of(name)
    raw = random_rows(format, n_rows, n_cols)
    apart = np.full((n_rows, raw.shape[1] + 5), 0xFF, np.uint8)  # rows need not follow each other
    apart[:, :-5] = raw
    out = np.full((n_rows + 2, n_cols), 1e30, np.float32)
    decode = DECODE(backend.library().decoder(name.encode()))
    decode(address(apart), apart.shape[1], n_rows, n_cols, address(out[1:]))
    assert (out[[0, -1]] == np.float32(1e30)).all()
    wanted = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])
    # A value is a product and, in some formats, a difference: rounded once or twice.
    size = np.abs(wanted).reshape(n_rows, -1, format.block_size).max(-1, keepdims=True)
    error = np.abs(out[1:-1] - wanted).reshape(n_rows, -1, format.block_size)
    assert (error <= 2.0**-22 * size + 1e-30).all()


def test_a_format_that_it_has_no_decoder_for(backend: NativeBackend) -> None:
    assert backend.library().decoder(b"Q4_0") is None  # has tiles
    assert backend.library().decoder(b"Q5_") is None


@pytest.mark.parametrize("name", ["Q5_K", "Q4_1"])
def test_linears(backend: NativeBackend, name: str) -> None:
    random = np.random.default_rng(1)
    for n_rows, n_cols in ((1, 256), (16, 256), (37, 512), (130, 1280)):
        weight = weight_of(name, n_rows, n_cols)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((31, n_cols)).astype(np.float32)
        matrix = weight.dequantize().astype(np.float64)
        whole = linear(x)
        limit = 2e-6 * (np.abs(x.astype(np.float64)) @ np.abs(matrix).T)
        assert (np.abs(whole - x.astype(np.float64) @ matrix.T) <= limit).all(), (n_rows, n_cols)
        for n in (1, 2, 3, 4, 5, 7, 12, 13):  # a row's result does not depend on its neighbours
            assert np.array_equal(linear(x[-n:]), whole[-n:]), (n_rows, n_cols, n)
        threaded = backend.linear(weight, BackendOptions(n_threads=3))
        assert threaded is not None
        assert np.array_equal(threaded(x), whole)


@pytest.mark.full
def test_whole_networks(backend: NativeBackend) -> None:
    check_backend(backend, formats=[format_of("Q5_0")], kv_types=["f32"])


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


@pytest.mark.parametrize("n_cols", [1, 3, 31, 130])
def test_rows_that_are_not_whole_vectors(backend: NativeBackend, n_cols: int) -> None:
    random = np.random.default_rng(2)
    raw = random.integers(0, 256, (21, n_cols), dtype=np.uint8)
    weight = Weight.of("w", Half(), (21, n_cols), lambda: raw.reshape(-1))
    linear = backend.linear(weight, BackendOptions())
    assert linear is not None
    x = random.integers(-9, 9, (9, n_cols)).astype(np.float32)
    assert np.array_equal(linear(x), x @ weight.dequantize().T)  # small halves: exact in any order


def test_what_stays_packed(backend: NativeBackend) -> None:
    """Rows are copied as they are where weights are packed, so that no file stays mapped, and else read in place."""
    weight = weight_of("Q5_K", 32, 256)
    for pack, n_bytes in ((True, weight.nbytes), (False, 0)):
        store = Store(backend.library(), 1, pack)
        assert (store.format_of(weight), store.nbytes([weight])) == (abi.DECODED, n_bytes)
        store.bind([weight], None)
        bound = store[weight]
        assert (bound.format, bound.tiles, bound.raw == address(weight.raw)) == (abi.DECODED, None, not pack)
        assert ctypes.string_at(bound.raw, weight.nbytes) == weight.raw.tobytes()
