"""The numpy reference against formulas written out in float64, and its bounds on memory."""

from __future__ import annotations

import gc
import math
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sis_core.arrays import F32
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear
from sis_core.backends.numpy.activations import ACTIVATIONS, erf, softcap
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops import attention as attention_module
from sis_core.backends.numpy.ops.attention import BoundAttention, KVState
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.backends.numpy.rotation import Rotation
from sis_core.block import (
    KV,
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Norm,
    Residual,
    Rope,
)
from sis_core.cache.pages import PageTable
from sis_core.errors import BackendError, FormatError
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, F16Format, Weight
from sis_core.rope import rope_frequencies
from sis_core.step import Batch, Group, Plan, Run
from sis_core.testing.networks import SMALL, random_network

Random = np.random.Generator


@pytest.fixture
def random() -> Random:
    return np.random.default_rng(11)


def plan_of(positions: Sequence[int]) -> Plan:
    at = np.asarray(positions, np.int32)
    return Plan(at, None, at, (Group(0, len(at), np.arange(8, dtype=np.int32), len(at)),), 32)


# --- Ops -------------------------------------------------------------------------------------------------------------


def test_erf_is_right_to_float32() -> None:
    x = np.linspace(-8, 8, 20001, dtype=np.float32)
    exact = np.array([math.erf(float(value)) for value in x])
    assert np.abs(erf(x) - exact).max() < 6e-8
    assert erf(np.array([0.0, -0.0, 1e-30, np.inf, -np.inf], np.float32)).tolist() == pytest.approx([0, 0, 0, 1, -1])


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("relu", lambda x: max(x, 0.0)),
        ("relu2", lambda x: max(x, 0.0) ** 2),
    ],
)
def test_activations(name: str, exact: Callable[[float], float]) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-80.0, 80.0]]).astype(np.float32)
    given_x = x.copy()
    y = ACTIVATIONS[name](x)
    np.testing.assert_allclose(y, [exact(float(value)) for value in x], rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(x, given_x, "the input was changed")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_extremes_do_not_warn_and_keep_nan(name: str) -> None:
    y = ACTIVATIONS[name](np.array([-1e30, -200.0, 0.0, 200.0, np.nan], np.float32))
    assert np.isfinite(y[1:4]).all()
    assert np.isnan(y[4])


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norms(kind: Literal["rms", "layer"], random: Random) -> None:
    x, w, b = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 3, 16), (16,), (16,)))
    norm = Norm(kind, 1e-3, Weight.from_array("w", w), Weight.from_array("b", b))
    wide = x.astype(np.float64) * 7 + 2
    centred = wide - (wide.mean(-1, keepdims=True) if kind == "layer" else 0)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * w + b
    np.testing.assert_allclose(BoundNorm(norm)(wide.astype(np.float32)), expected, rtol=0, atol=3e-6)
    assert BoundNorm(Norm(kind, 1e-3))(x).dtype == np.float32


@pytest.mark.parametrize("style", ["norm", "neox"])
def test_rotation_by_the_formula(style: Literal["norm", "neox"], random: Random) -> None:
    """Each pair is a complex number times exp(i · position · frequency)."""
    x, positions = random.standard_normal((3, 2, 12)).astype(np.float32), [0, 5, 100_000]
    rope = Rope(rope_frequencies(8, 10000.0), style, magnitude=1.25)
    y = Rotation.of(rope)(x, plan_of(positions))
    for row, position in enumerate(positions):
        for i, frequency in enumerate(rope.frequencies):
            a, b = (2 * i, 2 * i + 1) if style == "norm" else (i, i + 4)
            turned = (x[row, :, a] + 1j * x[row, :, b]) * 1.25 * np.exp(1j * position * frequency)
            np.testing.assert_allclose(y[row, :, a], turned.real, rtol=0, atol=1e-6)
            np.testing.assert_allclose(y[row, :, b], turned.imag, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(y[..., 8:], x[..., 8:])


def test_equal_ropes_share_a_rotation() -> None:
    first = Rotation.of(Rope(rope_frequencies(8, 123.0), "neox"))
    assert Rotation.of(Rope(rope_frequencies(8, 123.0), "neox")) is first
    assert Rotation.of(Rope(rope_frequencies(8, 123.0), "norm")) is not first
    assert Rotation.of(Rope(rope_frequencies(8, 123.0), "neox", 2.0)) is not first
    known = len(Rotation._known)
    del first
    gc.collect()
    assert len(Rotation._known) < known, "a rotation that nobody holds must go"


def test_a_rotation_in_two_threads(random: Random) -> None:
    rotation = Rotation.of(Rope(rope_frequencies(8, 77.0)))
    x = random.standard_normal((1, 2, 8)).astype(np.float32)
    plans = [plan_of([3]), plan_of([900])]
    expected = [rotation(x, plan) for plan in plans]
    wrong: list[int] = []

    def run(which: int) -> None:
        wrong.extend(which for _ in range(300) if not np.array_equal(rotation(x, plans[which]), expected[which]))

    threads = [threading.Thread(target=run, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_softcap() -> None:
    x = np.array([-100.0, -1.0, 0.0, 3.0], np.float32)
    np.testing.assert_allclose(softcap(x.copy(), 2.0), 2 * np.tanh(x / 2), rtol=1e-6)


# --- Linear ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7])
def test_linear_over_many_panels(n: int, random: Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.quant.PANEL_VALUES", 64)
    w, x, b = (random.standard_normal(shape).astype(np.float32) for shape in ((33, 16), (n, 16), (33,)))
    weight = Weight.from_array("w", w)
    assert len(list(weight.panels())) == 9
    expected = x.astype(np.float64) @ w.T
    np.testing.assert_allclose(ReferenceLinear(weight)(x), expected, rtol=0, atol=1e-5)
    bound = BoundDense.of(Dense(weight, Weight.from_array("b", b)), ReferenceLinear(weight))
    np.testing.assert_allclose(bound(x), expected + b, rtol=0, atol=1e-5)
    rows = weight.rows(5, 9)
    np.testing.assert_allclose(ReferenceLinear(rows)(x), expected[:, 5:9], rtol=0, atol=1e-5)


def test_a_linear_never_holds_its_weight(random: Random) -> None:
    weight = Weight.from_array("w", np.zeros((8192, 1024), np.float32), F16Format())  # 32 MiB in float32
    x = random.standard_normal((4, 1024)).astype(np.float32)
    tracemalloc.start()
    ReferenceLinear(weight)(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


# --- Attention -------------------------------------------------------------------------------------------------------

HEADS, HEADS_KV, DIM = 4, 2, 8


def bound_attention(random: Random, **options: Any) -> BoundAttention:
    """An attention whose projections are small random matrices, over ``HEADS * DIM`` values."""
    n = HEADS * DIM

    def dense(n_out: int) -> Dense:
        return Dense(Weight.from_array("w", (random.standard_normal((n_out, n)) / math.sqrt(n)).astype(np.float32)))

    q, k, v, out = dense(n), dense(HEADS_KV * DIM), dense(HEADS_KV * DIM), dense(n)
    op = Attention(q, k, v, out, HEADS, HEADS_KV, DIM, options.pop("scale", 1.5), **options)
    return BoundAttention(op, *(BoundDense.of(d, ReferenceLinear(d.weight)) for d in (q, k, v, out)))


def dense_attention(bound: BoundAttention, x: F32) -> np.ndarray[Any, Any]:
    """The whole text at once in float64, with a full matrix of scores."""
    op = bound.op
    q, k, v, out = (d.weight.dequantize().astype(np.float64) for d in (op.q, op.k, op.v, op.out))
    n, wide = len(x), x.astype(np.float64)
    q, k, v = ((wide @ w.T).reshape(n, -1, DIM) for w in (q, k, v))
    mixed = np.empty((n, HEADS, DIM))
    for head in range(HEADS):
        scores = op.scale * q[:, head] @ k[:, head * HEADS_KV // HEADS].T
        if op.softcap:
            scores = op.softcap * np.tanh(scores / op.softcap)
        i, j = np.indices(scores.shape)
        scores[(j > i) | (op.window is not None and j <= i - op.window)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, head * HEADS_KV // HEADS]
    return mixed.reshape(n, -1) @ out.T


def fed(bound: BoundAttention, texts: dict[int, F32], chunks: Sequence[int], kv_type: str = "f32") -> dict[int, F32]:
    """All texts side by side, in chunks of so many rows of each, over pages of 4 tokens."""
    n = max(len(text) for text in texts.values())
    table = PageTable(len(texts) * (-(-n // 4) + 1), 4)
    state = KVState(bound.op.state, kv_type, table.n_pages, 4)
    found: dict[int, list[F32]] = {sequence: [] for sequence in texts}
    start = 0
    for size in chunks:
        runs = tuple(Run(s, start, min(size, len(text) - start)) for s, text in texts.items() if start < len(text))
        if not runs:
            break
        x = np.concatenate([texts[s][p : p + n] for s, p, n in runs])
        with table.reserve(Batch([0] * len(x), runs, [])) as plan:
            y = iter(bound(x, plan, state))
        for sequence, _, rows in runs:
            found[sequence] += [next(y) for _ in range(rows)]
        start += size
    return {sequence: np.array(rows) for sequence, rows in found.items()}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    chunks=st.lists(st.integers(1, 17), min_size=40, max_size=40),
    window=st.sampled_from([None, 1, 3, 9, 30]),
    cap=st.sampled_from([None, 1.0]),
    keys=st.sampled_from([4, 12, 1024]),
    scores=st.sampled_from([1, 1 << 22]),
)
def test_attention_in_any_pieces(
    seed: int,
    lengths: list[int],
    chunks: list[int],
    window: int | None,
    cap: float | None,
    keys: int,
    scores: int,
) -> None:
    """Chunks, interleaved sequences, scattered pages, windows, blocks of keys: all equal the dense formula."""
    random = np.random.default_rng(seed)
    bound = bound_attention(random, window=window, softcap=cap)
    texts = {i * 7: random.standard_normal((n, HEADS * DIM)).astype(np.float32) for i, n in enumerate(lengths)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "KEYS", keys)
        patch.setattr(attention_module, "SCORES", scores)
        found = fed(bound, texts, chunks)
    for sequence, text in texts.items():
        np.testing.assert_allclose(found[sequence], dense_attention(bound, text), rtol=0, atol=2e-5)


def test_half_precision_cache(random: Random) -> None:
    bound = bound_attention(random, scale=0.3)
    text = {0: random.standard_normal((20, HEADS * DIM)).astype(np.float32)}
    exact, half = fed(bound, text, [7] * 3)[0], fed(bound, text, [7] * 3, "f16")[0]
    assert 0 < np.abs(exact - half).max() < 5e-3


def test_large_scores_do_not_overflow(random: Random) -> None:
    bound = bound_attention(random, scale=1e4)
    text = random.standard_normal((12, HEADS * DIM)).astype(np.float32)
    np.testing.assert_allclose(fed(bound, {0: text}, [12])[0], dense_attention(bound, text), rtol=0, atol=1e-3)


def test_head_norms_come_before_the_rotation(random: Random) -> None:
    norm = Norm("rms", 1e-6, Weight.from_array("n", np.full(DIM, 2.0, np.float32)))
    bound = bound_attention(random, q_norm=norm, k_norm=norm, rope=Rope(rope_frequencies(DIM, 100.0)))
    assert bound.q_heads.norm is not None
    x = random.standard_normal((1, HEADS * DIM)).astype(np.float32)
    state = KVState(bound.op.state, "f32", 1, 32)
    bound(x, plan_of([0]), state)
    np.testing.assert_allclose(np.square(state.keys[:, 0]).mean(-1), 4.0, rtol=1e-4)


def test_a_float32_cache_in_one_piece_is_read_in_place(random: Random) -> None:
    state = KVState(KV(2, 4, 4), "f32", 4, 32)
    group = Group(0, 1, np.array([1, 2], np.int32), 40)
    ((start, keys, values),) = state.blocks(group, 0)
    assert (start, keys.shape, values.shape) == (0, (2, 40, 4), (2, 40, 4))
    assert np.shares_memory(keys, state.keys)
    scattered = Group(0, 1, np.array([2, 1], np.int32), 40)
    ((_, keys, _),) = state.blocks(scattered, 0)
    assert not np.shares_memory(keys, state.keys)


def test_memory_of_prefill_is_bounded(random: Random) -> None:
    """512 rows behind 8,000 tokens: scores and keys in float32 would take 150 MiB if they were all there at once."""
    bound = bound_attention(random)
    length, m = 8512, 512
    state = KVState(KV(HEADS_KV, DIM, DIM), "f16", length // 32, 32)
    state.keys[...] = random.standard_normal(state.keys.shape)
    group = Group(0, m, np.arange(length // 32, dtype=np.int32), length)
    q = random.standard_normal((m, HEADS, DIM)).astype(np.float32)
    tracemalloc.start()
    bound._attend(q, group, state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_an_unknown_cache_type() -> None:
    with pytest.raises(BackendError, match=r"no kv_type 'q3'\. Choose f32, f16, bf16, q8_0 or q4_0"):
        KVState(KV(1, 2, 2), "q3", 1, 32)


def test_a_page_that_does_not_fit() -> None:
    state = KVState(KV(1, 2, 2), "f16", 2, 32)
    data = state.save_page(0)
    assert len(data) == state.page_nbytes == 32 * 2 * 2 * 2
    state.load_page(1, data)
    with pytest.raises(BackendError, match="a saved page has 255 bytes, not 256"):
        state.load_page(1, data[:-1])


# --- Layers ----------------------------------------------------------------------------------------------------------


def layer(*ops: Any) -> ReferenceLayer:
    return ReferenceLayer.of(Block(ops), ReferenceLinear)


def test_branches_of_a_residual_are_parallel(random: Random) -> None:
    x = random.standard_normal((3, 4)).astype(np.float32)
    double = Dense(Weight.from_array("w", 2 * np.eye(4, dtype=np.float32)))
    run = layer(Residual(((double,), (double, double))))
    np.testing.assert_allclose(run(x, plan_of([0, 1, 2]), None), x + 2 * x + 4 * x)
    assert run.new_state("f32", 1, 32) is None


def test_feed_forward_without_a_gate(random: Random) -> None:
    x = random.standard_normal((3, 4)).astype(np.float32)
    up = Dense(Weight.from_array("u", np.eye(4, dtype=np.float32)), Weight.from_array("b", np.ones(4, np.float32)))
    down = Dense(Weight.from_array("d", 3 * np.eye(4, dtype=np.float32)))
    y = layer(FeedForward(up, down, "relu"))(x, plan_of([0, 1, 2]), None)
    np.testing.assert_allclose(y, 3 * np.maximum(x + 1, 0), rtol=1e-6)


def test_an_op_that_brings_its_own_arithmetic() -> None:
    class Negate:
        def compute(self, hidden: F32, plan: Plan, state: object) -> F32:
            return -hidden

    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(layer(Negate())(x, plan_of([0, 1]), None), -x)


def test_what_the_reference_does_not_know_is_refused() -> None:
    with pytest.raises(BackendError, match="no backend knows the op object"):
        layer(object())
    dense = Dense(Weight.from_array("w", np.eye(4, dtype=np.float32)))
    with pytest.raises(BackendError, match="no backend knows the activation 'swish'"):
        layer(FeedForward(dense, dense, "swish"))  # type: ignore[arg-type]


class Nibbles(BlockFormat):
    name, block_size, type_size = "NIBBLES", 32, 18
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=Bits(2, 4))


def test_a_scale_that_is_no_number_is_refused_by_name(random: Random) -> None:
    """As native backends refuse it, which look at all numbers of a weight as they pack it."""
    rows = random.integers(0, 256, (9000, 36), np.uint8)
    rows[:, [1, 19]] = 0x20  # the upper bytes of scales: these are small
    weight = Weight.of("w", Nibbles(), (9000, 64), lambda: rows.reshape(-1))
    x = random.standard_normal((2, 64)).astype(np.float32)
    network = evolve(random_network(SMALL[0]), embedding=Embedding(weight), n_vocab=9000)
    embed, batch = BoundEmbedding(network), Batch([0, 8765], (Run(0, 0, 2),), [1])
    assert np.isfinite(ReferenceLinear(weight)(x)).all()
    assert np.isnan(ReferenceLinear(weight)(np.full_like(x, np.nan))).all()  # the weight is not to blame
    assert np.isfinite(embed(batch)).all()
    rows[8765, 18:20] = 0xFF, 0x7F  # the scale of the row's second block
    for run in (lambda: ReferenceLinear(weight)(x), lambda: embed(batch)):
        with pytest.raises(FormatError, match=r"w in NIBBLES: scales\[8765, 1\] is nan. The file is damaged"):
            run()
