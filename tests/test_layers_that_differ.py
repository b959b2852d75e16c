"""Layers whose heads differ in number and size, layers that read another's keys and values, and attention both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sis_core.arrays import F32, F64
from sis_core.backend import Backend, BackendOptions
from sis_core.backends.bind import bind
from sis_core.block import Attention, Block, Dense, Embedding, Head, Network, Residual
from sis_core.errors import BackendError
from sis_core.quant import Weight
from sis_core.step import Batch, Run
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.kernels.weights import format_of
from sis_core.testing.networks import VARIANTS, random_network, with_format

N_EMBD, N_VOCAB, WINDOW = 48, 60, 20
RANDOM = np.random.default_rng(11)
TOKENS = RANDOM.integers(0, N_VOCAB, 150).tolist()


def dense(n_out: int, n_in: int) -> Dense:
    return Dense(Weight.from_array("w", (RANDOM.standard_normal((n_out, n_in)) * 0.15).astype(np.float32)))


def attention(heads: int, kv: int, k_dim: int, v_dim: int, *, own: bool = True, **fields: Any) -> Attention:
    return Attention(
        q=dense(heads * k_dim, N_EMBD),
        k=dense(kv * k_dim, N_EMBD) if own else None,
        v=dense(kv * v_dim, N_EMBD) if own else None,
        out=dense(N_EMBD, heads * v_dim),
        n_head=heads,
        n_head_kv=kv,
        head_dim=k_dim,
        v_dim=v_dim,
        scale=k_dim**-0.5,
        **fields,
    )


def network(*layers: tuple[Attention, int | None]) -> Network:
    blocks = tuple(Block((Residual(((op,),)),), op.state, reads) for op, reads in layers)
    table = Weight.from_array("table", RANDOM.standard_normal((N_VOCAB, N_EMBD)).astype(np.float32))
    return Network(N_EMBD, N_VOCAB, 256, Embedding(table), blocks, Head(None, dense(N_VOCAB, N_EMBD)))


def oracle(net: Network, ids: list[int]) -> F64:
    """Every row's logits in float64, by the formula."""
    x = net.embedding.weight.dequantize()[ids].astype(np.float64)
    kept: list[tuple[F64, F64]] = []
    ago = np.arange(len(ids))[:, None] - np.arange(len(ids))

    def times(x: F64, record: Dense, heads: int) -> F64:
        return (x @ record.weight.dequantize().astype(np.float64).T).reshape(len(x), heads, -1)

    for block in net.blocks:
        op: Any = block.ops[0].branches[0][0]  # type: ignore[attr-defined]
        if block.reads_state_of is None:
            kept.append((times(x, op.k, op.n_head_kv), times(x, op.v, op.n_head_kv)))
        else:
            kept.append(kept[block.reads_state_of])
        k, v = (np.repeat(part, op.n_head // op.n_head_kv, axis=1) for part in kept[-1])
        scores = np.einsum("mhd,nhd->hmn", times(x, op.q, op.n_head), k) * op.scale
        hidden = (op.causal & (ago < 0)) | (ago >= (op.window or len(ids)))
        weights = np.exp(np.where(hidden, -np.inf, scores))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hmn,nhd->mhd", weights, v).reshape(len(ids), -1)
        x = x + mixed @ op.out.weight.dequantize().astype(np.float64).T
    return x @ net.head.dense.weight.dequantize().astype(np.float64).T  # type: ignore[no-any-return]


@pytest.fixture(params=["numpy", "native"])
def backends(request: pytest.FixtureRequest) -> list[Backend]:
    if request.param == "numpy":
        return []
    if (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    return [kind()]


class OnlyLayers(Backend):
    """The native backend without its forward."""

    name = "layers"

    def __init__(self, inner: Backend) -> None:
        self.layer = inner.layer  # type: ignore[method-assign]
        self.linear = inner.linear  # type: ignore[method-assign]


DIFFERENT = network(
    (attention(4, 2, 16, 8), None),
    (attention(2, 1, 8, 24, window=WINDOW), None),
    (attention(6, 2, 16, 8, own=False), 0),
    (attention(3, 1, 8, 24, own=False, window=WINDOW), 1),
    (attention(1, 1, 20, 5), None),
)


def fed(net: Network, backends: list[Backend]) -> F32:
    """The rows of a text, fed in pieces beside another text."""
    forward = bind(net, backends, BackendOptions(kv_type="f32"))
    cache = forward.new_cache("f32", 512)
    found, at = [], 0
    for n in (70, 1, 1, 40, 1, 37):
        runs = (Run(5, at, n), Run(2, at, n))
        batch = Batch(TOKENS[at : at + n] + TOKENS[::-1][at : at + n], runs, range(n))
        found.append(forward.step(batch, cache).values)
        at += n
    return np.concatenate(found)


def test_heads_differ_and_states_are_shared(backends: list[Backend]) -> None:
    wanted = oracle(DIFFERENT, TOKENS)
    forward = bind(DIFFERENT, backends, BackendOptions())
    if backends:
        assert forward.grains[0] == f"{backends[0].name} forward"
    assert np.abs(fed(DIFFERENT, backends) - wanted).max() < 2e-4 * np.abs(wanted).max()


def test_layer_by_layer(backends: list[Backend]) -> None:
    """A storage that two layers read is never that of two backends."""
    wanted = oracle(DIFFERENT, TOKENS)
    layers: list[Backend] = [OnlyLayers(backend) for backend in backends]
    assert np.abs(fed(DIFFERENT, layers) - wanted).max() < 2e-4 * np.abs(wanted).max()


def test_a_shared_state_counts_once(backends: list[Backend]) -> None:
    forward = bind(DIFFERENT, backends, BackendOptions(kv_type="f32"))
    cache = forward.new_cache("f32", 512)
    forward.step(Batch.of(TOKENS[:32], outputs=[]), cache)
    widths = [2 * (16 + 8), 8 + 24, 20 + 5]
    if backends:  # values in whole vectors
        widths = [2 * (16 + 16), 8 + 32, 20 + 16]
    assert cache.nbytes == 32 * 4 * sum(widths)


def test_attention_both_ways(backends: list[Backend]) -> None:
    net = network((attention(4, 2, 16, 8, causal=False), None), (attention(2, 1, 8, 8), None))
    assert (net.causal, DIFFERENT.causal) == (False, True)
    wanted = oracle(net, TOKENS)
    forward = bind(net, backends, BackendOptions(kv_type="f32"))
    batch = Batch(TOKENS + TOKENS[:40], (Run(1, 0, 150), Run(2, 0, 40)), range(190))
    found = forward.step(batch, forward.new_cache("f32", 512)).values
    other = oracle(net, TOKENS[:40])
    assert np.abs(found[:150] - wanted).max() < 2e-4 * np.abs(wanted).max()
    assert np.abs(found[150:] - other).max() < 2e-4 * np.abs(other).max()


def test_windows_both_ways_are_refused(backends: list[Backend]) -> None:
    net = network((attention(4, 2, 16, 8, causal=False, window=5), None))
    with pytest.raises(BackendError, match="no backend knows a window over tokens on both sides"):
        bind(net, backends, BackendOptions())


def test_a_state_that_keeps_too_little_is_refused(backends: list[Backend]) -> None:
    net = network(
        (attention(4, 2, 16, 8, window=10), None),
        (attention(4, 2, 16, 8, own=False, window=11), 0),
    )
    with pytest.raises(BackendError, match="layer 1: its attention looks back further than the 10 tokens"):
        bind(net, backends, BackendOptions())


def test_rows_alone_have_the_bits_of_single_rows(backends: list[Backend]) -> None:
    """`Batch.alone`, on a forward that was not asked for it when it was bound."""
    forward = bind(DIFFERENT, backends, BackendOptions(kv_type="f32"))
    slow, fast = forward.new_cache("f32", 512), forward.new_cache("f32", 512)
    single = np.concatenate([forward.step(Batch.of([t], position=i), slow).values for i, t in enumerate(TOKENS[:60])])
    batch = Batch(TOKENS[:60] + TOKENS[90:100], (Run(0, 0, 60), Run(1, 0, 10)), range(60), alone=True)
    np.testing.assert_array_equal(forward.step(batch, fast).values, single)


def test_rows_alone_where_many_rows_have_kernels_of_their_own(backends: list[Backend]) -> None:
    net = random_network(with_format(VARIANTS[0], format_of("Q8_0")))
    forward = bind(net, backends, BackendOptions(kv_type="f16"))
    cache = forward.new_cache("f16", 256)
    single = np.concatenate([forward.step(Batch.of([t], position=i), cache).values for i, t in enumerate(TOKENS)])
    batch = Batch(TOKENS, (Run(0, 0, len(TOKENS)),), range(len(TOKENS)), alone=True)
    np.testing.assert_array_equal(forward.step(batch, forward.new_cache("f16", 256)).values, single)
