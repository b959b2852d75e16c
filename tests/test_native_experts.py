"""Experts in one native call against the reference with the same kernels, by matrix: every format and company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32
from sis_core.backend import BackendOptions
from sis_core.backends.native import Library, NativeBackend
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear
from sis_core.block import Block, Dense, FeedForward, Residual
from sis_core.experts import Experts, Stack
from sis_core.quant import QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Plan
from sis_core.testing.kernels import kind_of_this_machine, load
from sis_core.testing.kernels.guards import between_guards

KIND = kind_of_this_machine()
REGISTRY = Registry.load()
pytestmark = pytest.mark.skipif(KIND is None, reason="no native backend for this machine")
FORMATS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "Q5_K", "Q5_0", "MXFP4"]
N_EXPERT, N_EMBD, N_FF = 8, 256, 256
NO_PLAN = Plan(np.zeros(1, np.int32), None, np.zeros(1, np.int32), (), 32)
CHOICES: dict[str, dict[str, Any]] = {
    "gated": {},
    "plain": {"gated": False, "activation": "gelu"},
    "sigmoid": {"gating": "sigmoid", "scale": 1.5, "n_group": 4, "n_group_used": 2},
    "inputs": {"gating": "sigmoid", "scale_input": True, "renormalise": False},
    "mixer": {"gating": "sparse_mixer", "renormalise": False},
    "gpt-oss": {"gating": "softmax_weight", "activation": "swiglu_oai", "renormalise": False},
}


def format_of(name: str) -> QuantFormat:
    found: QuantFormat = REGISTRY.get("quant_formats", name)
    return found


@pytest.fixture(scope="module")
def backend() -> NativeBackend:
    assert KIND is not None
    return KIND()


def experts(
    format: QuantFormat,
    *,
    biases: bool = False,
    gated: bool = True,
    shared: bool = False,
    n_embd: int = N_EMBD,
    **choice: Any,
) -> Experts:
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int, spread: float = 0.05, format: QuantFormat | None = None) -> Weight:
        return Weight.from_array(name, (spread * random.standard_normal(shape)).astype(np.float32), format)

    def stack(name: str, n_out: int, n_in: int) -> Stack:
        bias = weight(f"{name}.bias", N_EXPERT, n_out) if biases else None
        return Stack(weight(name, N_EXPERT, n_out, n_in, format=format), bias)

    def dense(name: str, n_out: int, n_in: int) -> Dense:
        return Dense(weight(name, n_out, n_in, format=format))

    return Experts(
        router=Dense(
            weight("router", N_EXPERT, n_embd, spread=0.2), weight("router.bias", N_EXPERT) if biases else None
        ),
        up=stack("up", N_FF, n_embd),
        down=stack("down", n_embd, N_FF),
        gate=stack("gate", N_FF, n_embd) if gated else None,
        selection_bias=weight("choice", N_EXPERT) if biases else None,
        shared=FeedForward(dense("s.up", 256, n_embd), dense("s.down", n_embd, 256), "relu") if shared else None,
        shared_gate=Dense(weight("s.gate", 1, n_embd)) if shared else None,
        **({"activation": "silu", "n_used": 3} | choice),
    )  # fmt: skip


def native(backend: NativeBackend, op: Experts, x: F32, **options: Any) -> F32:
    layer = backend.layer(Block((Residual(((op,),)),)), BackendOptions(**({"n_threads": 2} | options)))
    assert layer is not None, "experts are a native layer"
    return layer(x, NO_PLAN, None)


def by_matrix(backend: NativeBackend, op: Experts, x: F32) -> F32:
    """By the backend's kernels, row by row."""
    options = BackendOptions(n_threads=1)

    def bind(weight: Weight) -> Any:
        return backend.linear(weight, options) or ReferenceLinear(weight)

    layer = ReferenceLayer.of(Block((Residual(((op,),)),)), bind)
    return np.concatenate([layer(x[i : i + 1], NO_PLAN, None) for i in range(len(x))])


def rows(n: int, n_embd: int = N_EMBD) -> F32:
    return np.random.default_rng(2).standard_normal((n, n_embd)).astype(np.float32)


def error(found: F32, wanted: F32) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
def test_every_format(backend: NativeBackend, name: str, pack: bool) -> None:
    op, x = experts(format_of(name), biases=True), rows(21)
    found = native(backend, op, x, pack=pack, batch_invariant=True)
    assert error(found, by_matrix(backend, op, x)) < 1e-4


def merged(op: Experts) -> Experts:
    """The same with gates and ups in one stack."""
    assert op.gate
    both = np.concatenate([op.gate.weight.raw.reshape(N_EXPERT, -1), op.up.weight.raw.reshape(N_EXPERT, -1)], axis=1)
    data = both.reshape(-1)
    weight = Weight.of("gate_up", op.up.weight.format, (N_EXPERT, 2 * N_FF, N_EMBD), lambda: data)
    return evolve(op, gate=Stack(weight, op.gate.bias, 0), up=Stack(weight, op.up.bias, 1))


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q4_K", "MXFP4"])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
def test_gates_and_ups_in_one_stack(backend: NativeBackend, name: str, pack: bool) -> None:
    op, x = experts(format_of(name), biases=True), rows(90)
    np.testing.assert_array_equal(native(backend, merged(op), x, pack=pack), native(backend, op, x, pack=pack))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice(backend: NativeBackend, choice: str) -> None:
    op = experts(format_of("F32"), biases=True, shared=True, **CHOICES[choice])
    for n in (1, 2, 30):
        assert error(native(backend, op, rows(n)), by_matrix(backend, op, rows(n))) < 1e-4


@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q5_K"])
def test_company_and_threads_change_no_bit(backend: NativeBackend, name: str) -> None:
    op, x = experts(format_of(name), biases=True, shared=True), rows(70)
    found = native(backend, op, x, batch_invariant=True)
    for n_threads in (1, 3):
        np.testing.assert_array_equal(native(backend, op, x, n_threads=n_threads, batch_invariant=True), found)
    for few in (slice(0, 1), slice(5, 9), slice(40, 70)):
        np.testing.assert_array_equal(native(backend, op, x[few], batch_invariant=True), found[few])


@pytest.mark.parametrize("add", [True, False], ids=["added", "shared"])
def test_results_of_many_rows_are_made_some_columns_at_a_time(backend: NativeBackend, add: bool) -> None:
    """Of 64 rows all 768 columns, of 70 rows 512 and then 256."""
    op, x = experts(format_of("Q4_0"), biases=True, shared=not add, n_embd=768), rows(70, 768)
    found = native(backend, op, x, batch_invariant=True)
    np.testing.assert_array_equal(native(backend, op, x[:64], batch_invariant=True), found[:64])
    assert error(native(backend, op, x), by_matrix(backend, op, x)) < 2e-2


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q4_K", "Q5_K"])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in place"])
def test_many_rows(backend: NativeBackend, name: str, pack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for sets that multiply many rows at once, in workspaces between guards."""
    op, x = experts(format_of(name), biases=True), rows(300)
    wanted = by_matrix(backend, op, x)
    guards = between_guards(monkeypatch)
    assert error(native(backend, op, x, pack=pack), wanted) < 2e-2
    for whole, n_bytes in guards:
        assert (whole[:4096] == 0xFF).all()
        assert (whole[4096 + n_bytes :] == 0xFF).all()


def test_all_rows_with_one_expert(backend: NativeBackend) -> None:
    op = experts(format_of("F32"), n_used=1)
    favoured = np.zeros(N_EXPERT, np.float32)
    favoured[5] = 100
    op = evolve(op, router=evolve(op.router, bias=Weight.from_array("bias", favoured)))
    assert error(native(backend, op, rows(50)), by_matrix(backend, op, rows(50))) < 2e-2


@pytest.mark.parametrize("isa", ["avx_vnni", "avx512_vnni", "amx"])  # where others are known, the best of those
def test_an_expert_that_nearly_all_rows_chose(isa: str, tmp_path: Path) -> None:
    """256 of 300 rows: a unit of those may have more rows than one of all 300, which is half of them."""
    assert KIND is not None
    library = load(KIND, isa, tmp_path)

    class Forced(KIND):  # type: ignore[misc,valid-type]
        def library(self) -> Library:
            return library

    op, x = experts(format_of("Q4_0"), n_used=1, gated=False, activation="gelu"), rows(300) / 8
    directions = op.router.weight.dequantize()
    x += 3 * np.where(np.arange(300)[:, None] < 256, directions[5], directions[2])
    assert ((x @ directions.T).argmax(axis=1) == np.where(np.arange(300) < 256, 5, 2)).all()
    found = native(Forced(), op, x, n_threads=1, batch_invariant=True)
    np.testing.assert_array_equal(found[::7], native(Forced(), op, x[::7], n_threads=1, batch_invariant=True))


def test_a_damaged_row_stays_alone(backend: NativeBackend) -> None:
    op, x = experts(format_of("Q4_0")), rows(20)
    wanted = native(backend, op, x, batch_invariant=True)
    x[7] = np.nan
    found = native(backend, op, x, batch_invariant=True)
    assert np.isnan(found[7]).all()
    np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(wanted, 7, axis=0))


def test_what_kernels_do_not_know(backend: NativeBackend) -> None:
    good = experts(format_of("F32"), biases=True)
    block = Block((Residual(((good,),)),))
    assert backend.layer(block, BackendOptions()) is not None
    bad = [
        evolve(good, activation="swish"), evolve(good, gating="sparsemixer"), evolve(good, n_used=9),
        evolve(good, n_group=3), evolve(good, gate=None, activation="swiglu_oai"),
        evolve(good, up=Stack(good.up.weight, good.router.bias)), evolve(good, down=Stack(good.router.weight)),
        evolve(good, up=merged(good).up), evolve(good, gate=merged(good).up, up=merged(good).gate),
        evolve(merged(good), down=evolve(good.down, half=0)), evolve(good, selection_bias=good.up.bias),
        evolve(good, shared_gate=good.router),
    ]  # fmt: skip
    for op in bad:
        assert not backend.knows(Block((Residual(((op,),)),)), BackendOptions())
