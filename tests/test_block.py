"""The records: frequencies, states, and finding every weight."""

from __future__ import annotations

import numpy as np
import pytest

from sis_core.block import (
    KV,
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Head,
    Network,
    Norm,
    Residual,
    Rope,
    find_weights,
)
from sis_core.quant import Weight
from sis_core.rope import rope_frequencies, yarn_frequencies


def weight(name: str, *shape: int) -> Weight:
    return Weight.from_array(name, np.zeros(shape, np.float32))


def attention(window: int | None = None) -> Attention:
    q, k, v, out = (Dense(weight(name, 8, 8)) for name in "qkvo")
    return Attention(q, k, v, out, 4, 2, 2, 1.0, window=window)


def test_plain_frequencies() -> None:
    np.testing.assert_allclose(rope_frequencies(4, 10000.0), [1.0, 0.01])
    np.testing.assert_allclose(rope_frequencies(4, 10000.0, scale=0.5), [0.5, 0.005])
    np.testing.assert_allclose(rope_frequencies(4, 10000.0, factors=np.array([1, 4], np.float32)), [1.0, 0.0025])
    assert Rope(rope_frequencies(6, 100.0)).n_rot == 6


def test_yarn_keeps_fast_and_divides_slow_dimensions() -> None:
    """As the formula of the paper gives them one by one (section 3.2, with the dimensions rounded outwards)."""
    n_rot, base, factor, original = 64, 10000.0, 4.0, 2048
    frequencies = yarn_frequencies(n_rot, base, factor=factor, n_ctx_original=original)
    border = [n_rot * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base)) for turns in (32.0, 1.0)]
    low, high = np.floor(border[0]), np.ceil(border[1])
    for i in range(n_rot // 2):
        plain = base ** (-2 * i / n_rot)
        slow = min(max((i - low) / (high - low), 0.0), 1.0)
        assert frequencies[i] == pytest.approx(plain * (1 - slow) + plain / factor * slow)
    assert frequencies[0] == 1.0
    assert frequencies[-1] == pytest.approx(base ** (-62 / 64) / factor)


def test_state_of_an_attention() -> None:
    assert attention(window=7).state == KV(2, 2, 2, 7)
    assert KV(2, 4, 4).token_nbytes(2.0) == 32


def test_every_weight_is_found_once_for_each_use() -> None:
    table = weight("token_embd.weight", 8, 8)
    mlp = FeedForward(
        up=Dense(weight("up", 8, 8)), down=Dense(weight("down", 8, 8), weight("bias", 8)), activation="silu"
    )
    norm = Norm("rms", 1e-5, weight("norm", 8))
    block = Block((Residual(((norm, attention()), (mlp,))),), attention().state)
    network = Network(8, 8, 16, Embedding(table, positions=weight("pos", 16, 8)), (block,), Head(None, Dense(table)))
    names = [w.name for w in network.weights()]
    assert names == [
        "token_embd.weight", "pos", "norm", "q", "k", "v", "o", "up", "down", "bias", "token_embd.weight"
    ]  # fmt: skip
    assert network.n_layer == 1
    assert list(find_weights((1, "text", None))) == []
