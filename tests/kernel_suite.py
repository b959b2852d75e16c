"""What a native plugin must pass on every rung: against the numpy codecs, the float32 reference, and itself on other
threads. Its test names the rungs and subclasses the suite:

    backend = on_each_rung(X86Backend, ("portable", "avx2"))

    class TestKernels(KernelSuite): ...
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import sis_kquants
import sis_q4_0
import sis_q8_0

from sis_core.arrays import F32, I32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.native import Library, NativeBackend, abi, info, read_bandwidth
from sis_core.backends.native.memory import aligned
from sis_core.backends.native.program import Program
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.runner import Runner
from sis_core.backends.native.weights import Store
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.block import Attention, Dense, Embedding, FeedForward, Network, Residual
from sis_core.errors import BackendError, FormatError
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Batch, Plan, Run
from sis_core.testing import check_backend
from sis_core.testing.networks import VARIANTS, Variant, random_network, with_format

FORMATS: dict[str, QuantFormat] = {
    format.name: format
    for format in [F32Format(), F16Format(), BF16Format()]
    + [format for plugin in (sis_q4_0, sis_q8_0, sis_kquants) for format in plugin.sis_register_quant_formats()]
}
QUANTIZED = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")
SCALES_AT = {"Q8_0": (0,), "Q4_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}


def load(kind: type[NativeBackend], isa: str, folder: Path) -> Library:
    """A copy of the backend's library, which looks at SIS_ISA when it is loaded."""
    copy = folder / "libsis.so"
    shutil.copy(kind().library().path, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIS_ISA", isa)
        return Library(copy)


def kind_of_this_machine() -> type[NativeBackend] | None:
    """The native backend that works here."""
    found = Registry.load().records("backends")
    return next((type(b) for b in found if isinstance(b, NativeBackend) and b.idle_reason() is None), None)


def on_each_rung(kind: type[NativeBackend], isas: Sequence[str]) -> Any:
    """A fixture: the backend on this machine's best rung and, in the full run, on each that it has."""
    best = kind().library().isa_name if kind().idle_reason() is None else ""
    kept = best if best in isas else isas[-1]
    params = [isa if isa == kept else pytest.param(isa, marks=pytest.mark.full) for isa in isas]

    @pytest.fixture(scope="module", params=params)
    def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NativeBackend:
        library = load(kind, request.param, tmp_path_factory.mktemp("library"))
        if library.isa_name != request.param:
            pytest.skip(library.isa_reason)

        class Forced(kind):  # type: ignore[misc,valid-type]
            def library(self) -> Library:
                return library

        return Forced()

    return backend


def random_rows(format: QuantFormat, n_rows: int, n_cols: int, random: np.random.Generator) -> U8:
    """Random bytes with sane scales; for floats, random values."""
    if format.name not in SCALES_AT:
        return format.quantize(random.standard_normal((n_rows, n_cols)).astype(np.float32))
    raw = random.integers(0, 256, (n_rows, format.row_bytes(n_cols)), dtype=np.uint8)
    blocks = raw.reshape(-1, format.type_size)
    for at in SCALES_AT[format.name]:
        scales = (random.standard_normal(len(blocks)) * 0.01).astype("<f2")
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    return raw


def weight_of(format: QuantFormat, raw: U8, n_cols: int) -> Weight:
    return Weight.of("w", format, (len(raw), n_cols), lambda: raw.reshape(-1))


def rounded(x: F32) -> F32:
    """Activations as the integer kernels see them: blocks of 32 in 8 bits, in their own arithmetic."""
    blocks = x.reshape(len(x), -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, where=scale > 0, out=np.zeros_like(scale))
    return (np.rint(blocks * inverse) * scale).reshape(x.shape)


def in_halves(x: F32) -> F32:
    """Activations in half precision, in units of the power of two that brings a row's largest below 2^15."""
    _, exponent = np.frexp(np.abs(x).max(-1, keepdims=True))
    return np.ldexp(np.ldexp(x, 15 - exponent).astype(np.float16).astype(np.float32), exponent - 15)


class Plain(QuantFormat):
    """Rung 1: a format of Python alone, signed bytes in eighths."""

    name, block_size, type_size = "PLAIN", 1, 1

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return rows.view(np.int8).astype(np.float32) / np.float32(8)


DECODE = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_float),
)  # fmt: skip


@DECODE
def plain_decode(rows: Any, row_bytes: int, n_rows: int, n_cols: int, out: Any) -> None:
    source = np.ctypeslib.as_array(rows, (n_rows * row_bytes,)).reshape(n_rows, row_bytes)[:, :n_cols]
    np.ctypeslib.as_array(out, (n_rows * n_cols,))[:] = (source.view(np.int8) / np.float32(8)).reshape(-1)


class Decoded(Plain):
    """Rung 2: with a decoder."""

    @property
    def decoder(self) -> int | None:
        return ctypes.cast(plain_decode, ctypes.c_void_p).value


RUN = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.POINTER(abi.Rows),
    ctypes.c_void_p,
    ctypes.POINTER(abi.Rows),
    ctypes.c_uint32,
    ctypes.c_uint32,
)


def rows_of(record: abi.Rows) -> F32:
    flat = (ctypes.c_float * (record.n * record.stride)).from_address(record.values)
    array: F32 = np.frombuffer(flat, np.float32).reshape(record.n, record.stride)[:, : record.n_cols]
    return array


class Own(Plain):
    """Rung 3: with a linear of its own, in three parts."""

    def __init__(self, code: int = 0, version: int = abi.ABI) -> None:
        self.code, self.version, self.parts_run = code, version, set[int]()

    def native_linear(self, weight: Weight) -> OwnLinear:
        return OwnLinear(self, weight)


class OwnLinear:
    """A linear of Python's in C's clothes."""

    nbytes = 0

    def __init__(self, format: Own, weight: Weight) -> None:
        self.format, self.weight = format, weight

    def bind(self) -> int:
        matrix, format = self.weight.dequantize(), self.format

        def run(owner: int, x: Any, prepared: int, y: Any, part: int, parts: int) -> int:
            cut = [len(matrix) * i // parts for i in range(parts + 1)]
            chosen = slice(cut[part], cut[part + 1])
            rows_of(y[0])[:, chosen] = rows_of(x[0]) @ matrix[chosen].T
            format.parts_run.add(part)
            return format.code

        self.function = RUN(run)
        self.record = abi.LinearObject(format.version, 3, None, ctypes.cast(self.function, ctypes.c_void_p).value)
        return ctypes.addressof(self.record)


PREPARED_BYTES = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
PREPARE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(abi.Rows), ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)


class Prepared(Own):
    """Rung 3 with rows that are prepared: doubled, and counted. One `prepare` serves all linears of a format."""

    def __init__(self) -> None:
        super().__init__()
        self.other = ""  # weights whose names end so want a form of their own
        self.rows: list[tuple[int, int, int]] = []  # where to, the first, how many; appending is atomic
        self.bytes = PREPARED_BYTES(lambda owner, n: n * 4096 * 4)
        self.prepare = PREPARE(self._prepare)

    def _prepare(self, owner: int, x: Any, first: int, n: int, out: int) -> None:
        rows = rows_of(x[0])
        width = rows.shape[1]
        assert out % 64 == 0
        for row in range(first, first + n):
            doubled = (rows[row] * 2).astype(np.float32)
            ctypes.memmove(out + row * width * 4, doubled.ctypes.data, width * 4)
        self.rows.append((out, first, n))

    def native_linear(self, weight: Weight) -> OwnLinear:
        return PreparedLinear(self, weight)


class PreparedLinear(OwnLinear):
    def bind(self) -> int:
        assert isinstance(self.format, Prepared)
        matrix = self.weight.dequantize()

        def run(owner: int, x: Any, prepared: int, y: Any, part: int, parts: int) -> int:
            shape = (x[0].n, matrix.shape[1])
            flat = (ctypes.c_float * (shape[0] * shape[1])).from_address(prepared)
            chosen = slice(len(matrix) * part // parts, len(matrix) * (part + 1) // parts)
            rows_of(y[0])[:, chosen] = np.frombuffer(flat, np.float32).reshape(shape) @ matrix[chosen].T / 2
            return 0

        self.function = RUN(run)
        calls = [ctypes.cast(f, ctypes.c_void_p).value for f in (self.function, self.format.bytes, self.format.prepare)]
        form = int(self.weight.name.endswith(self.format.other)) if self.format.other else 0
        self.record = abi.LinearObject(abi.ABI, 3, None, *calls, form)
        return ctypes.addressof(self.record)


def _with_activation(op: Any, activation: str) -> Any:
    from attrs import evolve

    chains = tuple(
        tuple(evolve(o, activation=activation) if isinstance(o, FeedForward) else o for o in branch)
        for branch in op.branches
    )
    return evolve(op, branches=chains)


def _inputs_of(network: Network, format: QuantFormat, other: str) -> int:
    """How many inputs linears of a format read in a step, those in two forms counted twice."""

    def groups(op: Any) -> list[list[Dense]]:
        match op:
            case Attention():
                return [[op.q, op.k, op.v], [op.out]]
            case FeedForward():
                return [[op.up, *([op.gate] if op.gate else [])], [op.down]]
            case Dense():
                return [[op]]
            case Residual():
                return [g for branch in op.branches for inner in branch for g in groups(inner)]
            case _:
                return []

    listed = [g for block in network.blocks for op in block.ops for g in groups(op)] + [[network.head.dense]]
    forms = [{bool(other) and d.weight.name.endswith(other) for d in g if d.weight.format is format} for g in listed]
    return sum(map(len, forms))


def taken(library: Library, weight: Weight, rows: I32, table: int | None = None, *, by_position: bool = False) -> F32:
    """Rows of a table, as the embedding of a program takes them."""
    store = Store(library, 1, pack=False)
    table = store.table(weight) if table is None else table
    assert table is not None
    program = Program(store, Rotations(), weight.n_cols)
    program.embedding(Embedding(weight), table, table if by_position else None)
    program.rows_out()
    plan = Plan(rows, None, rows, (), 32)
    return Runner(library, Rotations(), 2).run(program.finish(weight.n_cols), (plan,), tokens=rows)


GUARD = 4096  # bytes


def between_guards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[U8, int]]:
    """From now on results and workspaces lie between guards and hold nothing but NaN; all of them, and their sizes."""
    guards: list[tuple[U8, int]] = []

    def guarded(n_bytes: int) -> U8:
        whole = aligned(n_bytes + 2 * GUARD)
        whole.fill(0xFF)
        guards.append((whole, n_bytes))
        return whole[GUARD : GUARD + n_bytes]

    def empty(shape: tuple[int, ...], dtype: Any) -> Any:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return guarded(n_bytes).view(dtype).reshape(shape)

    names = types.SimpleNamespace(empty=empty, ascontiguousarray=np.ascontiguousarray, float32=np.float32)
    monkeypatch.setattr("sis_core.backends.native.runner.aligned", guarded)
    monkeypatch.setattr("sis_core.backends.native.runner.np", names)
    return guards


class KernelSuite:
    """Every test takes the fixture ``backend``.

    Attributes:
        variants: the networks of tests that are about steps and threads.
        kv_types: the types of cache that every network is tested with.
        halves: the rungs that multiply F16 weights with activations in half precision.
    """

    variants: ClassVar[Sequence[Variant]] = VARIANTS
    kv_types: ClassVar[Sequence[str]] = ("f32", "f16")
    halves: ClassVar[Sequence[str]] = ()

    def seen(self, backend: NativeBackend, name: str, x: F32) -> F32:
        """Activations as the backend's kernels for a format see them."""
        if name in QUANTIZED:
            return rounded(x)
        return in_halves(x) if name == "F16" and backend.library().isa_name in self.halves else x

    def product(self, backend: NativeBackend, weight: Weight, x: F32) -> npt.NDArray[np.float64]:
        """The exact product with these."""
        return self.seen(backend, weight.format.name, x).astype(np.float64) @ weight.dequantize().astype(np.float64).T

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *QUANTIZED])
    @pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
    def test_linears(self, backend: NativeBackend, name: str, pack: bool) -> None:
        format, random = FORMATS[name], np.random.default_rng(1)
        for n_rows, n_cols in ((1, 256), (16, 256), (37, 512), (130, 1280)):
            weight = weight_of(format, random_rows(format, n_rows, n_cols, random), n_cols)
            linear = backend.linear(weight, BackendOptions(pack=pack))
            assert linear is not None
            x = random.standard_normal((31, n_cols)).astype(np.float32)
            x[:, :32] = 0  # a block of zeros has no scale
            wanted = self.product(backend, weight, x)
            whole = linear(x)
            assert np.abs(whole - wanted).max() <= 3e-6 * np.abs(wanted).max(), (n_rows, n_cols)
            for n in (1, 2, 3, 4, 5, 7, 12, 13):  # a row's result does not depend on its neighbours
                assert np.array_equal(linear(x[:n]), whole[:n]), n
        assert linear(x[:0]).shape == (0, n_rows)

    @pytest.mark.parametrize("n_cols", [1, 3, 17, 63, 100])
    @pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
    def test_odd_widths(self, backend: NativeBackend, name: str, n_cols: int) -> None:
        random = np.random.default_rng(2)
        weight = weight_of(FORMATS[name], random_rows(FORMATS[name], 19, n_cols, random), n_cols)
        x = random.standard_normal((5, n_cols)).astype(np.float32)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        np.testing.assert_allclose(linear(x), self.product(backend, weight, x), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *QUANTIZED])
    def test_activations_of_any_size(self, backend: NativeBackend, name: str) -> None:
        format, random = FORMATS[name], np.random.default_rng(8)
        weight = weight_of(format, random_rows(format, 20, 256, random), 256)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((3, 256)).astype(np.float32)
        x[1] = 0
        usual = linear(x)
        assert not usual[1].any()
        for size in (1e6, 1e30, 1e-30):
            wanted = self.product(backend, weight, x * np.float32(size))
            assert np.abs(linear(x * np.float32(size)) - wanted).max() <= 3e-6 * np.abs(wanted).max(), size
        for power in (np.float32(2**20), np.float32(2**-60)):
            assert np.array_equal(linear(x * power), usual * power)
        x[:, 7] = 1e6  # beside it all others are small
        wanted = self.product(backend, weight, x)
        assert np.abs(linear(x) - wanted).max() <= 3e-6 * np.abs(wanted).max()

    @pytest.mark.parametrize("name", ["F16", *QUANTIZED])
    @pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
    def test_unaligned_slices(self, backend: NativeBackend, name: str, pack: bool) -> None:
        """Rows and columns cut out of a tensor that begins at an odd address, as in a mapped file."""
        format, random = FORMATS[name], np.random.default_rng(3)
        rows = random_rows(format, 70, 1024, random)
        odd = np.empty(rows.size + 1, np.uint8)[1:]
        odd[:] = rows.reshape(-1)
        weight = Weight.of("w", format, (70, 1024), lambda: odd).rows(5, 66).cols(256, 768)
        x = random.standard_normal((3, 512)).astype(np.float32)
        linear = backend.linear(weight, BackendOptions(pack=pack))
        assert linear is not None
        wanted = self.product(backend, weight, x)
        assert np.abs(linear(x) - wanted).max() <= 3e-6 * np.abs(wanted).max()

    @pytest.mark.parametrize("name", QUANTIZED)
    def test_extreme_blocks(self, backend: NativeBackend, name: str) -> None:
        """Every byte the same, from 0x00 to 0xff, against full-scale activations of both signs: nothing saturates."""
        format = FORMATS[name]
        for byte in (0x00, 0x7F, 0x80, 0x81, 0xFF):
            raw = np.full((16, format.row_bytes(256)), byte, np.uint8)
            blocks = raw.reshape(-1, format.type_size)
            for at in SCALES_AT[name]:
                blocks[:, at : at + 2] = np.array([1.0], "<f2").view(np.uint8)
            weight = weight_of(format, raw, 256)
            linear = backend.linear(weight, BackendOptions())
            assert linear is not None
            for x in (np.ones((2, 256)), -np.ones((2, 256)), np.where(np.arange(512).reshape(2, 256) % 2, 1, -1)):
                x = x.astype(np.float32)
                wanted = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
                np.testing.assert_allclose(linear(x), wanted, rtol=2e-6, atol=2e-3)

    @pytest.mark.parametrize("name", ["F16", *QUANTIZED])
    def test_poison_stays_in_its_row(self, backend: NativeBackend, name: str) -> None:
        format, random = FORMATS[name], np.random.default_rng(4)
        weight = weight_of(format, random_rows(format, 16, 256, random), 256)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((6, 256)).astype(np.float32)
        clean = linear(x)
        for value in (np.nan, np.inf, -np.inf):
            x[2, 100] = value
            found = linear(x)
            assert not np.isfinite(found[2]).any()
            assert np.array_equal(np.delete(found, 2, 0), np.delete(clean, 2, 0))

    def test_nothing_outside_the_result_is_written(
        self, backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Results and workspaces lie between guards full of NaN, and hold nothing but NaN before."""
        guards = between_guards(monkeypatch)
        for variant, format in itertools.product(self.variants, (F16Format(), FORMATS["Q8_0"])):
            network = random_network(with_format(variant, format))
            forward = bind(network, [backend], BackendOptions(n_threads=2))
            cache = forward.new_cache("f16", 64)
            for start, stop in ((0, 13), (13, 14), (14, 33)):
                batch = Batch.of(list(range(start, stop)), position=start, outputs=[0, stop - start - 1])
                assert np.isfinite(forward.step(batch, cache).values).all(), variant.name
        assert len(guards) > 8 * len(self.variants)
        for whole, n_bytes in guards:
            assert (whole[:GUARD] == 0xFF).all()
            assert (whole[GUARD + n_bytes :] == 0xFF).all()

    @pytest.mark.parametrize("name", ["F32", "F16", "BF16", *QUANTIZED])
    def test_rows_of_the_embedding(self, backend: NativeBackend, name: str) -> None:
        format, random = FORMATS[name], np.random.default_rng(5)
        weight = weight_of(format, random_rows(format, 9, 512, random), 512)
        rows, wanted = np.array([8, 0, 3, 3], np.int32), weight.dequantize()
        found = taken(backend.library(), weight, rows)
        np.testing.assert_allclose(found, wanted[rows], rtol=1e-6, atol=1e-7)
        twice = taken(backend.library(), weight, rows, by_position=True)
        np.testing.assert_allclose(twice, 2 * wanted[rows], rtol=1e-6, atol=1e-7)

    def test_hidden_states_go_in_after_the_embedding(self, backend: NativeBackend) -> None:
        ids = [3, 1, 4, 1, 5]
        for variant in self.variants:
            network = random_network(variant)
            forward = bind(network, [backend], BackendOptions())
            wanted = forward.step(Batch.of(ids, outputs=range(5)), forward.new_cache("f32", 32)).values
            given = Batch(None, (Run(0, 0, 5),), range(5), hidden=BoundEmbedding(network)(Batch.of(ids)))
            found = forward.step(given, forward.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3, err_msg=variant.name)

    def test_every_network(self, backend: NativeBackend) -> None:
        check_backend(backend, formats=[F32Format(), BF16Format()], kv_types=self.kv_types)

    def test_every_network_in_f16(self, backend: NativeBackend) -> None:
        tolerance = 8e-3 if backend.library().isa_name in self.halves else 1e-4
        check_backend(backend, formats=[F16Format()], tolerance=tolerance, kv_types=self.kv_types)

    def test_every_network_in_q8_0(self, backend: NativeBackend) -> None:
        # The tolerance is for activations in 8 bits, in a network whose attention is sharper than any trained one's.
        check_backend(backend, formats=[FORMATS["Q8_0"]], tolerance=0.12, kv_types=self.kv_types)

    def test_results_do_not_depend_on_threads(self, backend: NativeBackend) -> None:
        for variant in self.variants:
            network = random_network(with_format(variant, FORMATS["Q8_0"]))
            found = []
            for n_threads in (1, 2, 3, 8):
                forward = bind(network, [backend], BackendOptions(n_threads=n_threads))
                cache = forward.new_cache("f16", 128)
                forward.step(Batch.of(list(range(60)), outputs=[]), cache)
                forward.step(Batch.of(list(range(7)), sequence=1, outputs=[]), cache)
                batch = Batch([5, 6, 7, 8], (Run(0, 60, 2), Run(1, 7, 1), Run(2, 0, 1)), range(4))
                found.append(forward.step(batch, cache).values)
            assert all(np.array_equal(found[0], other) for other in found[1:]), variant.name

    def test_results_do_not_depend_on_company(self, backend: NativeBackend) -> None:
        """Alone, in a chunk, and among other sequences, a row gives the same bits."""
        for variant in self.variants:
            network = random_network(with_format(variant, FORMATS["Q8_0"]))
            forward = bind(network, [backend], BackendOptions(batch_invariant=True))
            ids = np.random.default_rng(6).integers(0, network.n_vocab, 150)
            whole = forward.step(Batch.of(ids, outputs=range(150)), forward.new_cache("f16", 192)).values
            cache = forward.new_cache("f16", 384)
            forward.step(Batch.of(ids[:9], sequence=1, outputs=[]), cache)
            first = forward.step(Batch.of(ids[:137], outputs=range(137)), cache).values
            assert np.array_equal(first, whole[:137]), variant.name
            for i in range(137, 150):
                batch = Batch([3, ids[i]], (Run(1, i - 128, 1), Run(0, i, 1)), [1])
                assert np.array_equal(forward.step(batch, cache).values[0], whole[i]), (variant.name, i)

    @pytest.mark.parametrize("make", [Plain, Decoded, Own])
    def test_formats_of_strangers(self, backend: NativeBackend, make: Callable[[], Plain]) -> None:
        random = np.random.default_rng(7)
        raw = random.integers(0, 256, (45, 130), dtype=np.uint8)
        weight = weight_of(make(), raw, 130)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        x = random.standard_normal((14, 130)).astype(np.float32)
        seen = (
            self.seen(backend, "F16", x) if make is Plain else x
        )  # what Python decodes is kept in F16 where that fits
        np.testing.assert_allclose(linear(x), seen @ weight.dequantize().T, rtol=0, atol=2e-3)

    def test_a_whole_network_of_strangers(self, backend: NativeBackend) -> None:
        """All three rungs keep the one call a step."""

        class Encoded(Plain):
            def quantize(self, values: F32) -> U8:
                return np.clip(np.rint(values * 8), -127, 127).astype(np.int8).view(np.uint8)

        for base in (Plain, Decoded, Own):
            format = type("Encoded" + base.__name__, (Encoded, base), {})()
            network = random_network(with_format(VARIANTS[0], format))
            tested, wanted = bind(network, [backend], BackendOptions()), bind(network, [], BackendOptions())
            assert set(tested.grains) == {f"{backend.name} forward"}
            batch = Batch.of(list(range(9)), outputs=range(9))
            found = tested.step(batch, tested.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted.step(batch, wanted.new_cache("f32", 32)).values, rtol=0, atol=2e-2)

    @pytest.mark.parametrize("other", ["", "attn_k"], ids=["one form", "two forms"])
    def test_rows_are_prepared_once_for_all_that_share_them(self, backend: NativeBackend, other: str) -> None:
        class Encoded(Prepared):
            def quantize(self, values: F32) -> U8:
                return np.clip(np.rint(values * 8), -127, 127).astype(np.int8).view(np.uint8)

        format = Encoded()
        format.other = other
        for variant in VARIANTS:
            format.rows.clear()
            network = random_network(with_format(variant, format))
            wanted, tested = bind(network, [], BackendOptions()), bind(network, [backend], BackendOptions(n_threads=2))
            assert set(tested.grains) == {f"{backend.name} forward"}, variant.name
            batch = Batch.of(list(range(25)), outputs=range(25))
            true = wanted.step(batch, wanted.new_cache("f32", 32)).values
            found = tested.step(batch, tested.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, true, rtol=0, atol=2e-2, err_msg=variant.name)
            if variant.chooses:  # each expert prepares the rows that it was sent
                continue
            rows = sum(n for _, _, n in format.rows)
            assert rows == 25 * _inputs_of(network, format, other), variant.name

    def test_a_failing_linear_of_a_stranger(self, backend: NativeBackend) -> None:
        weight = weight_of(Own(code=7), np.ones((8, 4), np.uint8), 4)
        linear = backend.linear(weight, BackendOptions())
        assert linear is not None
        with pytest.raises(BackendError, match="failed with code 7"):
            linear(np.ones((1, 4), np.float32))
        with pytest.raises(FormatError, match="made a linear for ABI 99"):
            backend.linear(weight_of(Own(version=99), np.ones((8, 4), np.uint8), 4), BackendOptions())

    def test_a_linear_of_its_own_waits_for_the_rows_that_it_reads(self, backend: NativeBackend) -> None:
        from attrs import evolve

        random, network = np.random.default_rng(5), random_network(VARIANTS[0])
        n = network.n_embd
        wide = weight_of(FORMATS["F32"], random_rows(FORMATS["F32"], 4096, n, random), n)
        narrow = weight_of(Own(), random.integers(-8, 8, (n, 4096), np.int8).view(np.uint8), 4096)
        block = evolve(network.blocks[0], ops=(Residual(((Dense(wide), Dense(narrow)),)),), state=None)
        network = evolve(network, blocks=(block,))
        batch = Batch.of(list(range(3)), outputs=range(3))
        reference = bind(network, [], BackendOptions())
        wanted = reference.step(batch, reference.new_cache("f32", 32)).values
        forward = bind(network, [backend], BackendOptions(n_threads=3))
        assert forward.grains == (f"{backend.name} forward",)
        for _ in range(20):
            found = forward.step(batch, forward.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())

    def test_an_unknown_op_falls_to_the_next_grain(
        self, backend: NativeBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        from attrs import evolve

        class Double:
            def compute(self, hidden: F32, plan: Plan, state: object) -> F32:
                return hidden * 2

        network = random_network(VARIANTS[0])
        first = evolve(network.blocks[0], ops=(*network.blocks[0].ops, Double()))
        network = evolve(network, blocks=(first, *network.blocks[1:]))
        with caplog.at_level(logging.INFO):
            forward = bind(network, [backend], BackendOptions())
        assert forward.grains == (f"numpy layer + {backend.name} linear", f"{backend.name} layer")
        assert [r.message for r in caplog.records] == [
            f"{backend.name} does not know the op Double: layers one by one, and those it does not know by the linear"
        ]
        batch = Batch.of(list(range(9)), outputs=range(9))
        found = forward.step(batch, forward.new_cache("f32", 32)).values
        reference = bind(network, [], BackendOptions())
        wanted = reference.step(batch, reference.new_cache("f32", 32)).values
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        strange = evolve(network.blocks[1], ops=(_with_activation(network.blocks[1].ops[-1], "sine"),))
        assert backend.layer(strange, BackendOptions()) is None

    def test_other_cache_types_are_not_ours(self, backend: NativeBackend) -> None:
        assert backend.forward(random_network(VARIANTS[0]), range(2), BackendOptions(kv_type="q4_0")) is None

    def test_memory_and_in_place(self, backend: NativeBackend) -> None:
        network = random_network(with_format(VARIANTS[0], F16Format()))
        packed = backend.memory(network, range(2), BackendOptions())
        matrices = {w.name: w.nbytes for w in network.weights() if len(w.shape) == 2}
        assert sum(matrices.values()) <= packed <= 1.1 * sum(matrices.values())
        assert backend.memory(network, range(2), BackendOptions(pack=False)) == 0
        batch = Batch.of(list(range(9)))
        found = []
        for pack in (True, False):
            forward = bind(network, [backend], BackendOptions(pack=pack))
            found.append(forward.step(batch, forward.new_cache("f16", 32)).values)
        assert np.array_equal(*found)

    def test_progress_and_release(self, backend: NativeBackend) -> None:
        released, seen = [], list[tuple[int, int]]()
        weight = weight_of(F32Format(), np.zeros((40, 32), np.uint8), 8)
        weight = Weight(weight.name, weight.format, weight.shape, weight.read, weight.file_shape,
                        release=lambda: released.append(1))  # fmt: skip
        backend.linear(weight, BackendOptions(progress=lambda done, total: seen.append((done, total))))
        assert released == [1]
        assert seen
        assert seen[-1][0] == seen[-1][1]

    def test_many_python_threads(self, backend: NativeBackend) -> None:
        """Steps of several sessions at once: each gets what it gets alone, and none is left behind."""
        network = random_network(with_format(VARIANTS[0], FORMATS["Q8_0"]))
        forward = bind(network, [backend], BackendOptions(n_threads=3))

        def text(seed: int) -> F32:
            cache, ids = forward.new_cache("f16", 96), np.random.default_rng(seed).integers(0, 96, 80)
            forward.step(Batch.of(ids[:40], outputs=[]), cache)
            return np.concatenate([forward.step(Batch.of([t], position=i), cache).values
                                   for i, t in enumerate(ids.tolist()) if i >= 40])  # fmt: skip

        alone = [text(seed) for seed in range(4)]
        found: list[F32 | None] = [None] * 4

        def work(seed: int) -> None:
            found[seed] = text(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        assert all(other is not None and np.array_equal(one, other) for one, other in zip(alone, found, strict=True))

    def test_a_forked_child_has_threads_of_its_own(self, backend: NativeBackend) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system has no fork")
        program = (
            "import os, warnings, numpy as np\n"
            "from sis_core.backends.native.library import Library\n"
            "from pathlib import Path\n"
            "import sys\n"
            "warnings.simplefilter('ignore')\n"
            "library = Library(Path(sys.argv[1]))\n"
            "data = np.zeros(1 << 22, np.uint8)\n"
            "read = lambda: library.read(data.__array_interface__['data'][0], data.size, 3)\n"
            "read()\n"
            "child = os.fork()\n"
            "read()\n"
            "if child == 0: os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        command = [sys.executable, "-c", program, str(backend.library().path)]
        subprocess.run(command, check=True, timeout=600)

    def test_what_doctor_shows(self, backend: NativeBackend) -> None:
        shown = info(backend.library())
        assert shown["isa"] == backend.library().isa_name
        assert shown["note"] == "chosen by SIS_ISA"
        assert shown["threads"] >= 1
        assert shown["isa"] in backend.describe()
        assert read_bandwidth(backend.library(), mib=16, repeats=2) > 1e8

    def test_a_workspace_is_used_again(self, backend: NativeBackend) -> None:
        weight = weight_of(F32Format(), random_rows(F32Format(), 48, 64, np.random.default_rng(1)), 64)
        linear = backend.linear(weight, BackendOptions(n_threads=1))
        assert linear is not None
        calls: list[str] = []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                calls.append(name)
                return getattr(backend.library(), name)

        linear.runner.library = Watched()  # type: ignore[assignment]
        for n in (5, 3, 1, 5, 9, 2):
            linear(np.zeros((n, 64), np.float32))
        grown = ["run", "workspace", "run"]
        assert calls == [*grown, "run", "run", "run", *grown, "run"]

    def test_networks_that_contradict_themselves_are_not_ours(self, backend: NativeBackend) -> None:
        """Sizes that do not fit would be writes outside of memory: each is refused before an address is given away."""
        from attrs import evolve

        from sis_core.block import KV, Attention, Block, Dense, Residual

        good = random_network(VARIANTS[0])
        block = good.blocks[0]

        def with_attention(**changes: Any) -> Network:
            def changed(op: Any) -> Any:
                return evolve(op, **changes) if isinstance(op, Attention) else op

            ops = tuple(
                Residual(tuple(tuple(changed(inner) for inner in branch) for branch in op.branches))
                if isinstance(op, Residual)
                else op
                for op in block.ops
            )
            return evolve(good, blocks=(evolve(block, ops=ops), good.blocks[1]))

        def matrix(n_rows: int, n_cols: int) -> Dense:
            return Dense(Weight.from_array("m", np.zeros((n_rows, n_cols), np.float32)))

        n = good.n_embd
        wrong: list[Network] = [
            evolve(good, n_vocab=good.n_vocab + 1),
            evolve(good, head=evolve(good.head, dense=matrix(good.n_vocab - 1, n))),
            evolve(good, head=evolve(good.head, dense=matrix(good.n_vocab, n + 32))),
            evolve(good, blocks=(evolve(block, state=None), good.blocks[1])),
            evolve(good, blocks=(evolve(block, state=KV(1, 16, 16)), good.blocks[1])),
            evolve(good, blocks=(Block((), KV(2, 16, 16)), good.blocks[1])),
            evolve(good, blocks=(Block((matrix(n, 2 * n),)), good.blocks[1])),
            evolve(good, blocks=(Block((matrix(2 * n, n),)), good.blocks[1])),
            with_attention(q=matrix(n, 2 * n)),
            with_attention(out=matrix(n, 2 * n)),
            with_attention(k=matrix(n, n)),
            with_attention(n_head_kv=3),
            with_attention(v=matrix(1040, n)),
            with_attention(softcap=0.0),
        ]
        for i, network in enumerate(wrong):
            assert backend.forward(network, range(2), BackendOptions()) is None, i
        for network in wrong[3:]:
            assert backend.layer(network.blocks[0], BackendOptions()) is None
        layer = backend.layer(block, BackendOptions())
        assert layer is not None
        with pytest.raises(BackendError, match="pages of 24 tokens do not fit"):
            layer.new_state("f16", 4, 24)

    def test_a_cache_of_another_model_is_refused(self, backend: NativeBackend) -> None:
        forwards = [bind(random_network(v), [backend], BackendOptions()) for v in (VARIANTS[0], VARIANTS[1])]
        cache = forwards[1].new_cache("f16", 32)
        with pytest.raises(BackendError, match="made by another"):
            forwards[0].step(Batch.of([1]), cache)
        other = bind(random_network(VARIANTS[0]), [], BackendOptions())
        with pytest.raises(BackendError, match="made by another"):
            forwards[0].step(Batch.of([1]), other.new_cache("f16", 32))
