"""Layers with a window keep what lies within it; going back further than that feeds rows again, and changes no text."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32
from sis_core.backend import Backend, BackendOptions, Cache, Forward
from sis_core.backends.bind import bind
from sis_core.backends.numpy.ops.attention import KVState
from sis_core.block import KV, Attention, Block, Network
from sis_core.cache.paged import Layout, PagedCache
from sis_core.cache.tables import state_nbytes
from sis_core.errors import BackendError, ContextError
from sis_core.loading.model import Model
from sis_core.step import Batch, Output
from sis_core.testing.faults.change import change
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.networks import VARIANTS, random_network
from sis_core.texts.session import Session

WINDOW = 40
GEMMA = next(variant for variant in VARIANTS if variant.window)
TOKENS = np.random.default_rng(5).integers(0, 60, 400).tolist()


def network(*, only_windows: bool = False) -> Network:
    """Two layers, one or both with a window of 40 tokens."""
    found = random_network(evolve(GEMMA, window=WINDOW), n_ctx=512)
    if only_windows:
        found = change(found, Attention, lambda op: evolve(op, window=WINDOW))
        found = change(found, KV, lambda kv: evolve(kv, window=WINDOW))
    return found


class Bound:
    """What a session asks of a model."""

    degraded = 0

    def __init__(self, network: Network, backends: list[Backend]) -> None:
        self.config = SimpleNamespace(n_ctx=network.n_ctx, n_vocab=network.n_vocab)
        self.backend = "bound"
        self.network = network
        self.forward: Forward = bind(network, backends, BackendOptions(kv_type="f32", batch_invariant=bool(backends)))

    def new_cache(self, max_tokens: int) -> Cache:
        return self.forward.new_cache("f32", max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return self.forward.step(batch, cache)


@pytest.fixture(params=["numpy", "native"])
def backends(request: pytest.FixtureRequest) -> list[Backend]:
    if request.param == "numpy":
        return []
    if (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    return [kind()]


@pytest.fixture(params=[False, True], ids=["mixed", "windows"])
def bound(request: pytest.FixtureRequest, backends: list[Backend]) -> Bound:
    return Bound(network(only_windows=request.param), backends)


def session(bound: Bound, max_tokens: int = 512) -> Session:
    return Session(cast(Model, bound), max_tokens=max_tokens)


def same(bound: Bound, found: F32, ids: list[int]) -> None:
    """The last rows of a text are those of a fresh run: in native code to the bit."""
    wanted = session(bound).feed(ids, every=True)[-len(found) :]
    if bound.forward.grains[0].startswith("numpy"):
        assert np.abs(found - wanted).max() < 1e-4
    else:
        np.testing.assert_array_equal(found, wanted)


def test_a_chat_of_three_turns_and_back(bound: Bound) -> None:
    text = session(bound)
    ends = []
    for turn in range(3):  # a prompt at once, an answer token by token
        start = turn * 130
        text.feed(TOKENS[start : start + 90])
        text.mark()
        ends.append(start + 90)
        for token in TOKENS[start + 90 : start + 130]:
            last = text.feed([token])
    same(bound, last, TOKENS[:390])
    assert text.stats.rows_again == 0
    text.truncate(0, ends[2])  # another answer
    assert text.behind() == 0
    same(bound, text.feed([7]), [*TOKENS[: ends[2]], 7])
    text.truncate(0, ends[1])  # another answer before that one
    assert text.behind() == 0
    same(bound, text.feed([7]), [*TOKENS[: ends[1]], 7])
    text.truncate(0, 100)  # into the middle of an answer that no mark is near
    assert text.behind() == 100 - text.reach(0, 100) > 0
    again = text.behind()
    same(bound, text.feed([7]), [*TOKENS[:100], 7])
    assert text.stats.rows_again == again


def test_rollback_of_a_few_rows_feeds_nothing_again(bound: Bound) -> None:
    text = session(bound)
    for length in (203, 255, 256, 257):
        for rows in range(1, 17):
            text.feed(TOKENS[text.length() : length])
            text.truncate(0, length - rows)
            ids = [*TOKENS[: length - rows], 5, 6, 7]
            found = text.feed(ids[-3:], every=True)
            if rows == length % 17:
                same(bound, found, ids)
            text.truncate(0, length - rows)
        assert text.stats.rows_again == 0, length


def test_rollback_row_by_row(bound: Bound) -> None:
    """Guesses that are taken back, over and over, as drafts are."""
    text, ids, random = session(bound), TOKENS[:70], np.random.default_rng(1)
    text.feed(ids)
    for _ in range(20):
        wrong = random.integers(1, 17)
        text.feed([3] * int(wrong))
        text.truncate(0, len(ids))
        ids = ids + random.integers(0, 60, random.integers(1, 9)).tolist()
        last = text.feed(ids[text.length() :])
    same(bound, last, ids)
    assert text.stats.rows_again == 0


def test_forks(bound: Bound) -> None:
    text = session(bound, 2048)
    text.feed(TOKENS[:150])
    text.mark()
    text.feed(TOKENS[150:300])
    for target, n, again in ((1, 290, 0), (2, 150, 0), (3, 200, 50), (4, 100, 100)):
        text.fork(0, target, n)
        assert text.behind(target) == again
        found = text.feed([1, 2], target)
        same(bound, found, [*TOKENS[:n], 1, 2])
    same(bound, text.feed([8]), [*TOKENS[:300], 8])
    text.truncate(1, 150)  # a fork has the marks too
    assert text.behind(1) == 0
    same(bound, text.feed([9], 1), [*TOKENS[:150], 9])
    for sequence in range(5):
        text.drop(sequence)
    assert text.nbytes == 0


def test_saved_texts_hold_their_windows_only(bound: Bound) -> None:
    cache, other = bound.new_cache(512), bound.new_cache(1024)
    bound.step(Batch.of(TOKENS[:300], outputs=[]), cache)
    saved = list(cache.save(0))
    other.load(4, saved)
    assert sum(map(len, saved)) < cache.nbytes + 1000
    assert other.nbytes == cache.nbytes
    found = bound.step(Batch.of(TOKENS[300:303], position=300, sequence=4, outputs=[0, 1, 2]), other).values
    same(bound, found, TOKENS[:303])
    body = b"".join(saved)
    for wrong in (body[:-1], body + b"0", b"", body[:40], body.replace(b'"first"', b'"fist"')):
        with pytest.raises(BackendError, match="not a saved sequence of this model"):
            other.load(5, [wrong[i : i + 7] for i in range(0, len(wrong), 7)])
        assert other.length(5) == 0
    assert other.nbytes == cache.nbytes


def test_a_cache_says_what_it_cannot_go_back_to(bound: Bound) -> None:
    cache = bound.new_cache(512)
    bound.step(Batch.of(TOKENS[:300], outputs=[]), cache)
    assert cache.reach(0, 299) == 299
    assert cache.reach(0, 200) == 0
    with pytest.raises(ContextError, match="cannot keep 200 tokens of 300: what the next one needs is gone"):
        cache.truncate(0, 200)
    with pytest.raises(ContextError, match="cannot share 200 tokens of 300"):
        cache.fork(0, 1, 200)
    assert (cache.length(0), cache.length(1)) == (300, 0)


def test_a_step_that_fails_gives_nothing_back(bound: Bound) -> None:
    cache = bound.new_cache(512)
    bound.step(Batch.of(TOKENS[:200], outputs=[]), cache)
    used = cache.nbytes
    with pytest.raises(BackendError, match="outside the vocabulary"):
        bound.step(Batch.of([*TOKENS[:80], 10**6], position=200), cache)
    assert (cache.nbytes, cache.length(0)) == (used, 200)
    same(bound, bound.step(Batch.of([4], position=200), cache).values, [*TOKENS[:200], 4])


def test_an_interrupt_between_two_tables(backends: list[Backend]) -> None:
    """A text that one table has cut and the other not yet holds what both do."""
    bound = Bound(network(), backends)
    for cut in (0, 1):
        text = session(bound)
        text.feed(TOKENS[:200])
        text._tokens[0] = TOKENS[:195]
        cast(Any, text._cache).tables.all[cut].truncate(0, 195)
        assert text.behind() == 0
        same(bound, text.feed([9]), [*TOKENS[:195], 9])


def gemma(window: int | None) -> list[Block]:
    """The states of Gemma 3 270M: every sixth of 18 layers sees the whole text."""
    return [Block((), KV(1, 256, 256, None if i % 6 == 5 else window)) for i in range(18)]


def cache_of(blocks: list[Block], max_tokens: int) -> PagedCache:
    layout = Layout(blocks, range(len(blocks)))
    states = [KVState(cast(KV, b.state), "f16", layout.n_pages(i, max_tokens), 32) for i, b in enumerate(blocks)]
    return PagedCache(layout, states, max_tokens, "f16", None)


def steps(n: int, rows: int) -> Iterator[tuple[int, int]]:
    yield from ((start, min(rows, n - start)) for start in range(0, n, rows))


@pytest.mark.parametrize(("rows", "marks"), [(512, False), (512, True), (1, False)])
def test_bytes_of_a_long_text(rows: int, marks: bool) -> None:
    """Gemma 3's cache at 8,192 tokens, also with the marks of every 2,048 rows: 0.28 of one without windows."""
    n = 8192
    whole, windowed = cache_of(gemma(None), n), cache_of(gemma(512), n)
    most = 0
    for cache in (whole, windowed):
        for start, m in steps(n, rows):
            with cache.reserve(Batch.of([0] * m, position=start)):
                most = max(most, cache.nbytes)
            if marks and (start + m) % 2048 == 0:
                cache.mark(0)
    assert whole.nbytes == 8192 * 18 * 2 * 256 * 2
    assert windowed.nbytes <= 0.28 * whole.nbytes
    assert windowed.reach(0, 6144) == (6144 if marks else 0)
    page = 32 * 2 * 256 * 2
    counted = [sum(state_nbytes(cast(Any, b.state), page, n) for b in gemma(w)) for w in (512, None)]
    assert counted[0] <= 0.28 * counted[1]
    assert counted[1] == whole.nbytes
