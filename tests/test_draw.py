"""The draw: the same numbers everywhere, in the shares that logits give."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from sis_samplers.temperature import Temperature
from sis_samplers.top_p import TopP

from sis_core.arrays import F32
from sis_core.sampler import SamplerContext, _place, draw, log_softmax, uniform
from sis_core.texts.chain import Chain


def logits(*values: float) -> F32:
    return np.array(values, np.float32)


def normal(n: int, scale: float = 3, seed: int = 1) -> F32:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n).astype(np.float32) * np.float32(scale)


def philox(counter: int, key: int) -> list[int]:
    """Philox 4x64-10 as its paper defines it: four words for a counter of 256 bits and a key of 128."""
    ones = 2**64 - 1
    c = [counter >> shift & ones for shift in (0, 64, 128, 192)]
    k = [key & ones, key >> 64]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & ones, a >> 64 ^ c[3] ^ k[1], a & ones]
        k = [k[0] + 0x9E3779B97F4A7C15 & ones, k[1] + 0xBB67AE8584CAA73B & ones]
    return c


def test_uniform_is_the_same_everywhere() -> None:
    """Another generator, key or counter would change every seeded text."""
    assert philox(0, 0)[0] == 0x16554D9ECA36314C  # the paper's known answer
    for seed, step in ((0, 0), (1, 0), (0, 1), (2**63 + 5, 10**6), (-1, 3)):
        for purpose in ("", "xtc"):
            key = (zlib.crc32(purpose.encode()) << 64) + seed % 2**64
            assert uniform(seed, step, purpose) == (philox(step + 1, key)[0] >> 11) / 2**53
            numpys = int(np.random.Philox(key=key, counter=step).random_raw())
            assert uniform(seed, step, purpose) == (numpys >> 11) / 2**53
    assert uniform(0, 0) == 0.011546754286331562


def test_uniform_is_uniform() -> None:
    numbers = np.array([uniform(seed, step) for seed in range(20) for step in range(200)])
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 400).max() < 80  # four standard deviations
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.06


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 5000])
def test_draw_is_the_inverse_of_cumulated_probabilities(n: int) -> None:
    values = normal(n, 1)
    values[n // 2 + 1 :: 3] = -np.inf
    ends = np.cumsum(np.exp(values.astype(np.float64)))
    for step in range(100):
        assert draw(values, 3, step) == np.searchsorted(ends, uniform(3, step) * ends[-1], side="right")


def test_draw_never_takes_what_has_no_probability() -> None:
    values = np.full(1000, -5000, np.float32)
    values[[200, 700]] = 0
    assert {draw(values, 1, step) for step in range(50)} == {200, 700}
    values[:] = -np.inf
    values[17] = -1e38
    assert draw(values, 1, 2) == 17


def test_draw_shares_among_infinite_logits() -> None:
    values = logits(1, np.inf, 5, np.inf)
    assert {draw(values, 1, step) for step in range(50)} == {1, 3}
    chain = Chain.start([TopP(), Temperature()], SamplerContext(4))
    assert {chain.choose(values, step) for step in range(50)} == {1, 3}


@pytest.mark.parametrize("at", [0.0, 1 - 2**-53])
def test_draw_at_the_ends(at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.sampler.uniform", lambda seed, step: at)
    for n in (1, 3, 300, 70_000):
        values = normal(n)
        values[0] = values[-1] = -5000  # weight zero at both ends
        values[n // 2] = 3
        alive = np.flatnonzero(values > -5000) if n > 1 else [0]
        assert draw(values, 0, 0) == alive[0 if at == 0 else -1]


def test_a_place_where_rounding_leaves_none() -> None:
    ends = np.array([0.0, 0.5, 0.5, 1.0, 1.0])
    assert [_place(ends, target) for target in (0.0, 0.4, 0.5, 0.99, 1.0, 1.1)] == [1, 1, 3, 3, 3, 3]


def test_log_softmax() -> None:
    values = normal(1000)
    assert np.exp(log_softmax(values)).sum() == pytest.approx(1)
    assert log_softmax(logits(0, -np.inf)).tolist() == [0, -math.inf]
