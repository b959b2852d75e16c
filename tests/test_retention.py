"""What a text keeps of its past: pages with gaps, in constant memory, and the same text in any company."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sis_llama
import sis_samplers
import sis_tokenizers
from attrs import evolve, frozen
from tiny_models import metadata, write_model

from sis_core.arrays import F32
from sis_core.backends.numpy.watching import PageShares
from sis_core.cache.pages import PAGE_SIZE, PageTable, pages_for
from sis_core.cache.snapkv import SnapKV
from sis_core.errors import BackendError, ContextError, PluginError, SisError
from sis_core.eviction import Eviction
from sis_core.registry import Registry
from sis_core.step import Batch
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.texts.context import Sinks, make_context, retention_of
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Completion, Request
from sis_core.texts.retention import BestOfPrompt, SinksAndWindow, worst_pages
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import Session

REGISTRY = Registry.of(sis_llama, sis_samplers, sis_tokenizers)
N_CTX = 256
TOKENS = np.random.default_rng(5).integers(1, 60, 2000).tolist()


@pytest.fixture(scope="module", params=["numpy", "native"])
def model(request: pytest.FixtureRequest, random_model: Path) -> Iterator[LanguageModel]:
    native = request.param == "native"
    if native and (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    options: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": 1, "kv_type": "f32", "batch_invariant": native}
    with load(random_model, backend=kind.name if native else "numpy", **options) as found:
        yield found


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    path = write_model(tmp_path_factory.mktemp("models") / "stub.gguf", metadata(llama__context_length=N_CTX))
    with load(path, backend="stub", registry=REGISTRY) as found:
        yield found


def alone(model: LanguageModel, request: Request) -> Completion:
    with model.scheduler(reuse=False) as scheduler:
        scheduler.add(request)
        return Completion.of(list(scheduler.run()))


def endless(n: int = 40, **options: Any) -> Request:
    return Request(TOKENS[:n], **({"max_tokens": 600, "context": Sinks(4), "ignore_end": True, "seed": 1} | options))


def masked(model: LanguageModel, tokens: list[int], retention: SinksAndWindow) -> np.ndarray[Any, Any]:
    """The logits of the last token by another way: one row after the other over a cache that keeps everything, whose
    pages are hidden from each row by hand."""
    table = PageTable(pages_for(len(tokens)))
    cache = model.new_cache(len(tokens))
    cache.tables.all[0] = table  # type: ignore[attr-defined]
    whole = None
    for at, token in enumerate(tokens):
        gone = set(retention.gone(at))
        held = table._sequences.get(0)
        if held is not None:
            whole = [page if whole is None or i >= len(whole) else whole[i] for i, page in enumerate(held.pages)]
            seen = [-1 if i in gone else page for i, page in enumerate(whole)]
            table._sequences[0] = held.of(seen, held.length)
        values = model.step(Batch.of([token], position=at), cache).values
    return values[0]


def test_a_text_sees_its_first_tokens_and_a_window(model: LanguageModel) -> None:
    retention = SinksAndWindow(4, N_CTX)
    n = 300
    with model.session() as session:
        session.retain(0, retention)
        found = session.feed(TOKENS[:n])[0]
    np.testing.assert_allclose(found, masked(model, TOKENS[:n], retention), atol=2e-5)
    with model.session() as session:
        session.retain(0, retention)
        session.feed(TOKENS[: N_CTX - 6])
        for token in TOKENS[N_CTX - 6 : N_CTX + 10]:
            last = session.feed([token])[0]
    with model.session(max_tokens=2 * N_CTX) as session:
        session.retain(0, retention)
        session.feed(TOKENS[:N_CTX])
        full = session.feed(TOKENS[N_CTX : N_CTX + 10])[0]
    np.testing.assert_allclose(last, full, atol=2e-5)


def test_memory_stays_while_a_text_grows(stub: LanguageModel) -> None:
    """The pages are those that any backend has; `test_ten_thousand_tokens` has their bytes."""
    with stub.session() as session:
        session.retain(0, SinksAndWindow(4, N_CTX))
        for _ in range(10_000 // 20):
            session.feed(TOKENS[:20])
            assert session.nbytes <= 4 * N_CTX
        assert session.length() == 10_000


@pytest.mark.full
def test_ten_thousand_tokens(model: LanguageModel) -> None:
    with model.scheduler() as scheduler:
        full = model.forward.cache_nbytes("f32", N_CTX)
        scheduler.add(endless(max_tokens=10_000))
        n, sizes = 0, []
        while scheduler.busy:
            n += sum(piece.token is not None for piece in scheduler.step())
            sizes.append(scheduler.session.nbytes)
        assert n == 10_000
        assert max(sizes[N_CTX:]) == full
        assert min(sizes[N_CTX:-1]) >= full // 2


def test_company_and_giving_way_change_nothing(
    model: LanguageModel, stub: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    if model.backend == "numpy":
        model = stub  # whose rows are the same in any company
    wanted = [alone(model, endless(n, seed=n, max_tokens=250)) for n in (30, 200, 470)]
    chance = random.Random(3)
    with Scheduler(model.session(max_tokens=int(1.6 * N_CTX))) as scheduler:
        numbers = [scheduler.add(endless(n, seed=n, max_tokens=250)) for n in (30, 200, 470)]
        pieces: dict[int, list[Any]] = {number: [] for number in numbers}
        while scheduler.busy:
            for piece in scheduler.step():
                if piece.sequence in pieces:
                    pieces[piece.sequence].append(piece)
            if chance.random() < 0.05:
                scheduler.add(Request(TOKENS[: chance.randrange(1, 200)], max_tokens=5, priority=1))
    assert "gives way" in caplog.text
    assert [Completion.of(pieces[number]) for number in numbers] == wanted


def test_the_next_turn_goes_on_from_what_is_kept(model: LanguageModel, stub: LanguageModel) -> None:
    if model.backend == "numpy":
        model = stub  # numpy is slow
    first = endless(100, max_tokens=400)
    text = [*first.prompt, *alone(model, first).tokens, 7, 8, 9]
    following = evolve(first, prompt=text, max_tokens=30)
    with model.scheduler() as scheduler:
        scheduler.add(first)
        list(scheduler.run())
        scheduler.add(following)
        pieces = list(scheduler.run())
        assert pieces[0].n_cached == 499
        scheduler.add(evolve(following, context="error", prompt=text[:200]))  # another kind: what it shares is whole
        again = list(scheduler.run())
    assert Completion.of(pieces).tokens == alone(model, following).tokens
    assert again[0].n_cached == PAGE_SIZE
    assert Completion.of(again).tokens == alone(model, evolve(following, context="error", prompt=text[:200])).tokens


def test_going_back_behind_a_gap_feeds_again(model: LanguageModel) -> None:
    with model.session(max_tokens=2 * N_CTX) as session:
        session.retain(0, SinksAndWindow(4, N_CTX))
        session.feed(TOKENS[:600])
        wanted = session.feed([3])
        assert session.n_evicted(0) == 11 * PAGE_SIZE
        session.fork(0, 1)
        np.testing.assert_allclose(session.feed([5], 1), session.feed([5]), atol=2e-5)
        assert session.reach(0, 500) == PAGE_SIZE
        session.truncate(0, 600)
        np.testing.assert_allclose(session.feed([3]), wanted, atol=2e-5)
        session.truncate(0, 300)
        assert session.behind() == 300 - PAGE_SIZE
        session.feed(TOKENS[300:600])
        np.testing.assert_allclose(session.feed([3]), wanted, atol=2e-5)
        session.truncate(0, 601)
        session.use_backend("numpy")
        session.truncate(0, 600)
        np.testing.assert_allclose(session.feed([3]), wanted, atol=1e-4)
        with pytest.raises(ContextError, match=r"sequence 0: 352 of its tokens were evicted: what is left cannot be"):
            session.save()


def test_places_that_no_model_has_seen_are_told_once(stub: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    with stub.session() as session:
        session.retain(0, SinksAndWindow(4, N_CTX))
        for n in 200, 56, 1, 300:
            session.feed(TOKENS[:n])
    assert caplog.text.count("goes past the 256 places that the model was trained for") == 1


def test_a_step_does_not_go_past_a_place_where_pages_are_given_back(stub: LanguageModel) -> None:
    with stub.session() as session:
        session.retain(0, SinksAndWindow(4, N_CTX))
        assert session.until(0) == PAGE_SIZE
        with pytest.raises(ContextError, match=r"33 tokens goes past a place where pages are given back: 32 fit"):
            session.advance({0: TOKENS[:33]}, {0: 1})
        assert session.length() == 0


def test_a_context_too_small_for_a_window(stub: LanguageModel) -> None:
    short, done = (stub.generate_batch(["Once"], context="sinks:200", max_tokens=n)[0] for n in (9, None))
    assert short.error is None
    assert done.finish_reason == "error"
    assert "256 tokens, in pages of 32, leave no room for a window after 200 kept" in str(done.error)
    assert "--ctx 288" in str(done.error)


def test_places_that_are_learned_end(stub: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = evolve(stub.network.embedding, positions=stub.network.embedding.weight)
    monkeypatch.setattr(stub, "network", evolve(stub.network, embedding=embedding))
    with Session(stub) as session, pytest.raises(ContextError, match=r"context: this model has learned its \d+ places"):
        session.retain(0, SinksAndWindow(4, N_CTX))


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_windows_larger_than_the_context_are_cut_to_it(tmp_path: Path, random_model: Path, backend: str) -> None:
    if backend == "native" and (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    wide = write_model(tmp_path / "wide.gguf", metadata(llama__attention__sliding_window=4096))
    found = []
    for path in (wide, random_model):
        name = kind.name if backend == "native" else "numpy"
        with load(path, backend=name, n_ctx=N_CTX, n_threads=1, kv_type="f32") as model, model.session() as session:
            session.retain(0, SinksAndWindow(4, N_CTX))
            session.feed(TOKENS[:600])
            session.mark(0)
            session.feed(TOKENS[600:660])
            assert session.n_evicted(0) == 13 * PAGE_SIZE
            assert session.nbytes <= model.forward.cache_nbytes("f32", N_CTX)
            found.append(session.feed([3])[0])
            session.truncate(0, 600)
            found.append(session.feed([3])[0])
    np.testing.assert_array_equal(found[:2], found[2:])


def test_layers_with_a_window_keep_that() -> None:
    """A model that has no other layers takes constant memory as it is: nothing is to be evicted."""
    table = PageTable(8, window=64)
    with table.reserve(Batch.of(TOKENS[:200])):
        pass
    table.evict(0, [])
    assert table.n_used == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sinks:0", "context: is 0, but must be at least 1"),
        ("sinks:four", "context: sinks is 'four', but must be a whole number"),
        ("sink:4", "there is no way 'sink:4' to go on (did you mean 'sinks'?). Give error, shift, sinks:N"),
        ("shift:4", "there is no way 'shift:4' to go on"),
        ("", "there is no way '' to go on"),
        ("snapkv:0", "keep is 0, but must be a whole number, 64 or more"),
        ("snapkv:many", "keep of snapkv is 'many', but must be a whole number, 64 or more"),
        ("snapkv:keep=64,windw=3", "snapkv has no field 'windw' (did you mean 'window'?)"),
        ("snapvk:64", "there is no way 'snapvk:64' to go on (did you mean 'snapkv'?)"),
    ],
)
def test_what_is_no_context(text: str, message: str) -> None:
    with pytest.raises(SisError) as caught:
        make_context(text, REGISTRY)
    assert message in str(caught.value)


def test_what_contexts_are() -> None:
    assert make_context("shift") == "shift"
    assert make_context("snapkv:64", REGISTRY) == make_context("snapkv:keep=64,window=32", REGISTRY) == SnapKV(64)
    assert make_context("sinks") == make_context("sinks:4") == Sinks(4)
    assert retention_of(Sinks(4), 512, 10, 513) == SinksAndWindow(4, 512)
    assert retention_of(Sinks(4), 512, 10, 512) is None
    assert retention_of("error", 512, 10, 512) is None


@frozen
class Keeps(Eviction):
    """Rates the pages that it is told highest."""

    name = "keeps"
    keep: int = 4 * PAGE_SIZE
    window: int = 20
    pages: tuple[int, ...] = (0, 3)

    def rate(self, attention: Sequence[F32]) -> F32:
        scores = np.zeros(attention[0].shape[2], np.float32)
        scores[list(self.pages)] = 1
        return scores


def test_an_eviction_keeps_the_pages_it_rates_highest(model: LanguageModel) -> None:
    """Of 200 tokens, in seven pages, the last two stay for their window, and two of the others."""
    n, rule = 200, BestOfPrompt(Keeps(), 200)
    with model.session() as session:
        session.retain(0, rule)
        session.feed(TOKENS[:n])
        assert (session.n_evicted(0), session.until(0) > n) == (0, True)
        found = session.feed([7])[0]
        assert session.n_evicted(0) == 3 * PAGE_SIZE
        later = session.feed([8, 9])[0]
        session.truncate(0, n)
        assert session.behind() == 0
        np.testing.assert_allclose(session.feed([7])[0], found, atol=2e-5)
        session.truncate(0, 100)  # what was evicted is fed again, and evicted again
        session.feed(TOKENS[100:n])
        session.feed([7])
        assert session.n_evicted(0) == 3 * PAGE_SIZE
        np.testing.assert_allclose(session.feed([8, 9])[0], later, atol=2e-5)
    with model.session() as session:
        session.feed(TOKENS[:n])
        session._cache.evict(0, [1, 2, 4])
        np.testing.assert_allclose(session.feed([7])[0], found, atol=2e-5)


def test_snapkv_keeps_what_the_last_tokens_look_at(model: LanguageModel) -> None:
    eviction = SnapKV(keep=3 * PAGE_SIZE, window=8)
    with model.session() as session:
        session.feed(TOKENS[:168])
        batch = Batch.of(TOKENS[168:180], position=168, outputs=[])
        attention = model.step(evolve(batch, watch=True), session._cache).attention
    assert [layer.shape for layer in attention] == [(4, 12, 6)] * 2
    for layer in attention:
        np.testing.assert_allclose(layer.sum(-1), 1, atol=1e-5)
        assert layer.min() >= 0
    last = [layer[:, -8:] for layer in attention]
    totals = [sum(float(layer[..., page].sum()) for layer in last) for page in range(5)]
    best = sorted(range(5), key=lambda page: -totals[page])[:2]
    assert worst_pages(eviction, last, 180) == sorted({0, 1, 2, 3, 4} - set(best))


def test_shares_of_attention_are_those_of_a_softmax() -> None:
    """Blocks of keys one after the other, each beside its own maximum, against one softmax over all keys."""
    scores = np.random.default_rng(3).normal(0, 4, (2, 5, 3, 100)).astype(np.float32)  # heads, rows, shared, keys
    found = PageShares((2, 5, 3), 4, 32)
    for start, stop in (0, 64), (64, 100):
        peak = scores[..., :stop].max(-1, keepdims=True)
        found.add(slice(0, 5), start, np.exp(scores[..., start:stop] - peak), peak)
    weights = np.exp(scores.astype(np.float64))
    weights /= weights.sum(-1, keepdims=True)
    wanted = np.stack([weights[..., 32 * page : 32 * page + 32].sum(-1) for page in range(4)], -1)
    np.testing.assert_allclose(found.result(), wanted.swapaxes(1, 2).reshape(6, 5, 4), rtol=1e-5)


@pytest.mark.parametrize(("kv_type", "tolerance"), [("f32", 1e-5), ("bf16", 2e-2), ("q8_0", 1e-3)])
def test_backends_agree_where_attention_goes(random_model: Path, kv_type: str, tolerance: float) -> None:
    """Over two spans of 512 keys, with pages that were given back.

    A last bit of a sum may move a key to the next code of the cache: measured in Q8_0, up to 1.4e-4 of a share (avx2).
    """
    if (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    found = []
    for backend in "numpy", kind.name:
        with load(random_model, backend=backend, kv_type=kv_type, batch_invariant=True) as one:  # no 16-bit tiles
            cache = one.new_cache(700)
            one.step(Batch.of(TOKENS[:600], outputs=[]), cache)
            cache.evict(0, [1, 2, 17])
            batch = Batch.of(TOKENS[600:620], position=600, outputs=[])
            found.append(one.step(evolve(batch, watch=True, alone=backend == "numpy"), cache).attention)
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance)
        assert not mine[..., [1, 2, 17]].any()


def test_a_text_with_an_eviction(model: LanguageModel) -> None:
    request = Request(TOKENS[:200], max_tokens=40, context=Keeps(), ignore_end=True, seed=3)
    wanted = alone(model, request)
    assert wanted.error is None
    with model.scheduler() as scheduler:
        for _ in range(2):
            scheduler.add(request)
            pieces = list(scheduler.run())
        assert scheduler.session.stats.rows < 600
    assert Completion.of(pieces).tokens == wanted.tokens  # the first of them is whole up to its first gap
    assert pieces[0].n_cached == PAGE_SIZE
    assert alone(model, evolve(request, context=Keeps(pages=(1, 2)))).tokens != wanted.tokens


def test_an_eviction_that_fails_ends_its_text_alone(model: LanguageModel) -> None:
    bad = Request(TOKENS[:200], max_tokens=40, context=Keeps(pages=(900,)), ignore_end=True, seed=3)
    good = Request(TOKENS[:90], max_tokens=40, ignore_end=True, seed=4)
    with model.scheduler() as scheduler:
        numbers = [scheduler.add(request) for request in (good, bad, good)]
        pieces = list(scheduler.run())
    first, failed, last = (Completion.of([p for p in pieces if p.sequence == number]) for number in numbers)
    assert isinstance(failed.error, PluginError)
    assert str(failed.error).startswith("eviction keeps: failed: IndexError: index 900")
    assert first.tokens == last.tokens == alone(model, good).tokens
    with model.session() as session:
        session.retain(0, BestOfPrompt(Keeps(pages=(900,)), 200))
        session.feed(TOKENS[:200])
        with pytest.raises(PluginError, match="index 900"):
            session.feed([7])


def test_a_rating_that_is_none(stub: LanguageModel) -> None:
    with pytest.raises(PluginError, match=r"eviction keeps: gave float32 scores of shape \(7,\), not 6 finite numbers"):
        worst_pages(Keeps(), [np.ones((1, 20, 7), np.float32)], 180)
    with pytest.raises(PluginError, match="eviction keeps: failed: IndexError: index 9"):
        worst_pages(Keeps(pages=(9,)), [np.ones((1, 20, 6), np.float32)], 180)
    with pytest.raises(BackendError, match="the backend stub cannot tell where attention goes"):
        stub.generate_batch([TOKENS[:200]], context="snapkv:64", max_tokens=3)
