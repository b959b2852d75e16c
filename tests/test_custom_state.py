"""A state that core does not know: a plugin's op that sums up the text, beside layers with attention."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import BackendOptions, Cache
from sis_core.backends.bind import bind
from sis_core.backends.numpy.pages import StatePages
from sis_core.block import Block, Network, Residual
from sis_core.errors import ContextError
from sis_core.loading.model import Model
from sis_core.step import Batch, Output, Plan, Run
from sis_core.testing.networks import N_EMBD, VARIANTS, random_network
from sis_core.texts.session import Session

TOKENS = np.random.default_rng(2).integers(0, 60, 200).tolist()


@frozen
class Sum:
    """A row of floats a sequence, whatever its length."""

    width: int
    window: int = 0

    def token_nbytes(self, value_bytes: float) -> float:
        return 0

    @property
    def sequence_nbytes(self) -> int:
        return 4 * self.width


@frozen
class FadingSum:
    """``y[t] = sum of 0.9 ** (t - s) * x[s]`` over the text so far: the simplest recurrence."""

    def compute(self, hidden: F32, plan: Plan, state: StatePages) -> F32:
        kept = state.pages.view(np.float32)
        y = np.empty_like(hidden)
        for group in plan.groups:
            before, after = group.pages.tolist()
            total = kept[before].copy() if before >= 0 else np.zeros(hidden.shape[1], np.float32)
            for row in range(group.first, group.first + group.n):
                total = np.float32(0.9) * total + hidden[row]
                y[row] = np.float32(0.1) * total
            kept[after] = total
        return y


def network(*, attention: bool = True) -> Network:
    """A layer with attention over a window, one with attention over all, and between them one that sums up."""
    found = random_network(evolve(next(v for v in VARIANTS if v.window), window=20), n_ctx=512)
    own = Block((Residual(((FadingSum(),),)),), Sum(N_EMBD))
    first, last = found.blocks
    return evolve(found, blocks=(first, own, last) if attention else (own,))


class Bound:
    """What a session asks of a model."""

    degraded = 0

    def __init__(self, network: Network) -> None:
        self.config = SimpleNamespace(n_ctx=network.n_ctx, n_vocab=network.n_vocab)
        self.network = network
        self.forward = bind(network, [], BackendOptions(kv_type="f32"))

    def new_cache(self, max_tokens: int) -> Cache:
        return self.forward.new_cache("f32", max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return self.forward.step(batch, cache)


@pytest.fixture(params=[True, False], ids=["with attention", "alone"])
def bound(request: pytest.FixtureRequest) -> Bound:
    return Bound(network(attention=request.param))


def session(bound: Bound) -> Session:
    return Session(cast(Model, bound), max_tokens=1024)


def same(bound: Bound, found: F32, ids: list[int]) -> None:
    wanted = session(bound).feed(ids, every=True)[-len(found) :]
    assert np.abs(found - wanted).max() < 1e-4


def test_the_state_goes_on(bound: Bound) -> None:
    text = session(bound)
    text.feed(TOKENS[:70])
    text.feed(TOKENS[10:30], 1)
    for i in range(70, 90):
        found = text.step({1: [TOKENS[i - 40]], 0: [TOKENS[i]]})
    same(bound, found[0], TOKENS[:90])
    same(bound, found[1], TOKENS[10:50])


def test_it_goes_back_to_marks_only(bound: Bound) -> None:
    text = session(bound)
    text.feed(TOKENS[:70])
    text.mark()
    text.feed(TOKENS[70:100])
    assert (text.reach(0, 99), text.reach(0, 100), text.reach(0, 69)) == (70, 100, 0)
    text.truncate(0, 90)
    assert text.behind() == 20
    same(bound, text.feed([5]), [*TOKENS[:90], 5])
    text.truncate(0, 60)
    assert text.behind() == 60
    same(bound, text.feed([6]), [*TOKENS[:60], 6])
    assert text.stats.rows_again == 80


def test_marks_are_few(bound: Bound) -> None:
    text = session(bound)
    for start in range(0, 60, 20):
        text.feed(TOKENS[start : start + 20])
        text.mark()
    text.feed(TOKENS[60:65])
    assert [text.reach(0, n) for n in (64, 59, 39)] == [60, 40, 0]


def test_forks_share_what_no_step_writes(bound: Bound) -> None:
    text = session(bound)
    text.feed(TOKENS[:50])
    used = text.nbytes
    text.fork(0, 1)
    assert text.nbytes == used
    found = text.step({0: [1], 1: [2]})
    same(bound, found[0], [*TOKENS[:50], 1])
    same(bound, found[1], [*TOKENS[:50], 2])
    text.fork(0, 2, 40)
    assert text.behind(2) == 40
    same(bound, text.feed([3], 2), [*TOKENS[:40], 3])
    for sequence in range(3):
        text.drop(sequence)
    assert text.nbytes == 0


def test_a_failed_step_leaves_the_state_as_it_was(bound: Bound) -> None:
    cache = bound.new_cache(256)
    bound.step(Batch.of(TOKENS[:50], outputs=[]), cache)
    used = cache.nbytes
    wrong = evolve(bound.network, blocks=(*bound.network.blocks, Block((Residual(((Fails(),),)),))))
    failing = bind(wrong, [], BackendOptions())
    spoilt = cast(Any, failing)
    cast(Any, cache).owner = spoilt.token  # its first layers are those of the cache
    cast(Any, cache).read.append(None)
    with pytest.raises(RuntimeError, match="half way"):
        failing.step(Batch.of(TOKENS[50:60], position=50), cache)
    assert (cache.nbytes, cache.length(0)) == (used, 50)
    cast(Any, cache).owner = cast(Any, bound.forward).token
    cast(Any, cache).read.pop()
    same(bound, bound.step(Batch.of([4], position=50), cache).values, [*TOKENS[:50], 4])


class Fails:
    """After the layers before it have written."""

    def compute(self, hidden: F32, plan: Plan, state: object) -> F32:
        raise RuntimeError("half way")


def test_it_is_saved(bound: Bound) -> None:
    cache, other = bound.new_cache(256), bound.new_cache(256)
    bound.step(Batch.of(TOKENS[:50], outputs=[]), cache)
    other.load(7, cache.save(0))
    same(bound, bound.step(Batch.of([4], position=50, sequence=7), other).values, [*TOKENS[:50], 4])


def test_alone_is_row_by_row(bound: Bound) -> None:
    """Rows computed alone have the bits of one row at a time, and a failing one takes the others back."""
    slow, fast = bound.new_cache(256), bound.new_cache(256)
    runs = (Run(3, 0, 5), Run(1, 0, 2))
    ids = TOKENS[:7]
    found = bound.step(Batch(ids, runs, range(7), alone=True), fast).values
    single = [bound.step(Batch.of([t], position=i, sequence=3), slow).values for i, t in enumerate(ids[:5])]
    single += [bound.step(Batch.of([t], position=i, sequence=1), slow).values for i, t in enumerate(ids[5:])]
    np.testing.assert_array_equal(found, np.concatenate(single))
    with pytest.raises(Exception, match="outside the vocabulary"):
        bound.step(Batch([1, 2, 10**6], (Run(3, 5, 2), Run(1, 2, 1)), [], alone=True), fast)
    assert (fast.length(3), fast.length(1)) == (5, 2)


def test_it_cannot_be_cut(bound: Bound) -> None:
    cache = bound.new_cache(256)
    bound.step(Batch.of(TOKENS[:50], outputs=[]), cache)
    with pytest.raises(ContextError, match="cannot keep 49 tokens of 50"):
        cache.truncate(0, 49)
    assert cache.length(0) == 50
    assert cache.n_free > 0
