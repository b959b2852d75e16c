"""The scheduler: a text is the same in whatever company, with whatever room, and whoever fails beside it."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import random_model
import sis_llama
import sis_samplers
import sis_tokenizers
from shapes import SHAPES
from tiny_models import metadata, write_model

from sis_core.arrays import F32
from sis_core.backends.stub import StubForward
from sis_core.cache.pages import PAGE_SIZE, pages_for
from sis_core.errors import BackendError, ClosedError, ContextError, MemoryLimitError, SamplerError, SisError
from sis_core.loading.model import Model
from sis_core.registry import Registry
from sis_core.sampler import Filter, Sampler, SamplerContext, SamplerState, log_softmax
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Completion, Piece, Request
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import CHUNK, Session

PROMPTS = ["Once", "The cat sat on the", "x", "A longer prompt than the others, by far."]


@attrs.frozen
class Trips(Sampler):
    """Fails when so many tokens have been chosen."""

    name = "trips"
    after: int = 2
    error: type[BaseException] = ValueError

    def start(self, context: SamplerContext) -> SamplerState:
        return _Tripping(self)


class _Tripping(SamplerState):
    def __init__(self, options: Trips) -> None:
        self.options, self.seen = options, 0

    def apply(self, logits: F32) -> None:
        if self.seen == self.options.after:
            raise self.options.error("over the carpet")

    def accept(self, token: int) -> None:
        self.seen += 1


@attrs.frozen
class ForbidsAll(Filter):
    name = "forbids-all"

    def apply(self, logits: F32) -> None:
        logits.fill(-np.inf)


@pytest.fixture(scope="module", params=["stub", "numpy", "x86"])
def model(request: pytest.FixtureRequest, random_model: Path) -> Iterator[LanguageModel]:
    """Of 128 tokens of context. Rows that differ by company in their last bit, as those of numpy, choose alike."""
    if request.param == "x86":
        sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
        if (reason := sis_x86.backend.X86Backend().idle_reason()) is not None:
            pytest.skip(f"the x86 backend is idle: {reason}")
    same = request.param != "numpy"  # there it is very slow
    with load(random_model, backend=request.param, kv_type="f32", n_threads=1, batch_invariant=same) as found:
        yield found


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    """Of 4096 tokens of context, on the stub."""
    path = write_model(tmp_path_factory.mktemp("models") / "long.gguf", metadata(llama__context_length=4096))
    with load(path, backend="stub", registry=Registry.of(sis_llama, sis_samplers, sis_tokenizers)) as found:
        yield found


def alone(model: LanguageModel, request: Request, n_ctx: int | None = None) -> Completion:
    """What becomes of a request that has the model for itself."""
    with Scheduler(model.session(n_ctx=n_ctx), reuse=False) as scheduler:
        scheduler.add(request)
        return Completion.of(list(scheduler.run()))


def by_text(pieces: Iterable[Piece]) -> dict[int, list[Piece]]:
    found = defaultdict(list)
    for piece in pieces:
        found[piece.sequence].append(piece)
    return dict(found)


def completions(pieces: Iterable[Piece]) -> dict[int, Completion]:
    return {number: Completion.of(part) for number, part in by_text(pieces).items()}


def requests(model: LanguageModel, prompts: Iterable[str] = PROMPTS, **options: Any) -> list[Request]:
    options = {"max_tokens": 20, "ignore_end": True, "temperature": 1.5, "sampler": "top-p"} | options
    return [model.request(prompt, seed=7 + i, **options) for i, prompt in enumerate(prompts)]


def test_texts_join_and_leave_at_any_step(model: LanguageModel) -> None:
    wanted = [alone(model, request) for request in requests(model)]
    with model.scheduler(max_tokens=512) as scheduler:
        found: list[Piece] = []
        for request in requests(model):
            scheduler.add(request)
            found += scheduler.step() + scheduler.step()
        leaver = scheduler.add(requests(model)[0])
        found += scheduler.step()
        scheduler.cancel(leaver)
        scheduler.cancel(leaver)
        scheduler.cancel(99)
        found += scheduler.run()
        assert not scheduler.busy
    texts = completions(found)
    assert len(by_text(found)[leaver]) == 1
    assert [texts[i] for i in range(len(wanted))] == wanted


def test_cancelling_frees_pages_at_once(model: LanguageModel) -> None:
    with model.scheduler(max_tokens=192) as scheduler:
        first, second = scheduler.add(Request([1] * 60)), scheduler.add(Request([2] * 60))
        waiting = scheduler.add(Request([3] * 60))
        scheduler.step()
        assert (scheduler.n_running, scheduler.n_waiting) == (2, 1)
        used = scheduler.session.nbytes
        scheduler.cancel(first)
        assert scheduler.session.nbytes < used
        scheduler.cancel(waiting)
        scheduler.cancel(second)
        assert (scheduler.session.nbytes, scheduler.busy, scheduler.step()) == (0, False, [])


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        ({"samplers": [ForbidsAll()]}, "sampler forbids-all: every token is forbidden"),
        ({"samplers": [Trips()]}, "sampler trips: failed: ValueError: over the carpet"),
        ({"prompt": [5] * 129}, "129 tokens does not fit into the context of 128"),
        ({"prompt": []}, "prompt: the prompt has no tokens"),
        ({"prompt": [999]}, "token 999 is outside the vocabulary of 260"),
        ({"adapter": "poet"}, "the model has no adapter 'poet'"),
    ],
)
def test_one_failing_text_among_four_ends_alone(model: LanguageModel, breaking: dict[str, Any], message: str) -> None:
    good = requests(model)
    wanted = [alone(model, request) for request in good]
    good[2] = attrs.evolve(good[2], **breaking)
    with model.scheduler(max_tokens=512, reuse=False) as scheduler:
        for request in good:
            scheduler.add(request)
        texts = completions(scheduler.run())
        assert scheduler.session.nbytes == 0
    failed = texts.pop(2)
    assert failed.finish_reason == "error"
    assert message in str(failed.error)
    assert texts == {i: wanted[i] for i in (0, 1, 3)}


def test_a_broken_tokenizer_is_no_reason_to_end_the_others(
    long: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(long.tokenizer).token_bytes

    def token_bytes(self: Any, token: int, **options: Any) -> bytes:
        if token == 42:
            raise IndexError("no such token")
        return original(self, token, **options)

    monkeypatch.setattr(type(long.tokenizer), "token_bytes", token_bytes)
    bias = {"sampler": "greedy", "max_tokens": 3, "ignore_end": True}
    with long.scheduler() as scheduler:
        scheduler.add(long.request("Once", logit_bias={41: 1000.0}, **bias))
        scheduler.add(long.request("Once", logit_bias={42: 1000.0}, **bias))
        texts = completions(scheduler.run())
    assert texts[0].tokens == (41, 41, 41)
    assert str(texts[1].error) == "sequence 1: failed: IndexError: no such token"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failing_step_ends_all_and_others_may_follow(
    long: LanguageModel, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = alone(long, requests(long)[0])
    with long.scheduler() as scheduler:
        for request in requests(long):
            scheduler.add(request)
        scheduler.step()
        with monkeypatch.context() as patch:

            def trip(*args: object) -> None:
                raise error

            patch.setattr(StubForward, "step", trip)
            with pytest.raises(BackendError if error is RuntimeError else error):
                scheduler.step()
        assert (scheduler.busy, scheduler.session.nbytes) == (False, 0)
        scheduler.add(requests(long)[0])
        assert next(iter(completions(scheduler.run()).values())) == wanted


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_sampler_without_memory_ends_all(long: LanguageModel, error: type[BaseException]) -> None:
    with long.scheduler() as scheduler:
        scheduler.add(Request([1], [Trips(0, error)]))
        with pytest.raises(error):
            scheduler.step()


def test_a_cache_too_small_for_three_texts(model: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    three = requests(model, PROMPTS[:3], max_tokens=70)
    wanted = [alone(model, request) for request in three]
    with (
        caplog.at_level(logging.INFO, "sis_core.texts"),
        model.scheduler(max_tokens=128, reuse=False) as scheduler,
    ):
        for request in three:
            scheduler.add(request)
        texts = completions(scheduler.run())
        assert scheduler.session.nbytes == 0
    assert [texts[i] for i in range(3)] == wanted
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert all(line.startswith("the cache is full: text ") for line in lines)
    assert "text 0" not in " ".join(lines)  # the oldest never gives way


def test_200_texts_over_a_cache_for_20(model: LanguageModel) -> None:
    n = 200
    prompts = [f"{i} " + "and so on, " * (i % 4) for i in range(n)]
    wanted = {}
    with model.scheduler(max_tokens=n * 96, reuse=False) as roomy:
        for request in requests(model, prompts, max_tokens=8):
            roomy.add(request)
        wanted = completions(roomy.run())
    with model.scheduler(max_tokens=20 * 2 * PAGE_SIZE) as scheduler:
        for request in requests(model, prompts, max_tokens=8):
            scheduler.add(request)
        found, most = [], 0
        while scheduler.busy:
            found += scheduler.step()
            most = max(most, scheduler.n_running)
        assert 15 <= most <= 40
    assert completions(found) == wanted


def test_a_text_that_alone_does_not_fit_ends_with_an_error(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = requests(model, PROMPTS[:1], max_tokens=100)
    wanted = alone(model, whole[0]).tokens
    with monkeypatch.context() as patch:
        original = Model.new_cache
        patch.setattr(Model, "new_cache", lambda self, max_tokens: original(self, 2 * PAGE_SIZE))
        scheduler = model.scheduler()
    with scheduler:
        scheduler.add(whole[0])
        scheduler.add(attrs.evolve(whole[0], max_tokens=3))
        first, second = completions(scheduler.run()).values()
    assert (second.finish_reason, second.tokens) == ("length", wanted[:3])
    assert first.finish_reason == "error"
    assert isinstance(first.error, MemoryLimitError)
    assert first.tokens == wanted[: 2 * PAGE_SIZE + 1 - len(whole[0].prompt)]


def test_a_small_cache_is_a_short_context(long: LanguageModel) -> None:
    with long.scheduler(max_tokens=64) as scheduler:
        scheduler.add(Request([1] * 65))
        scheduler.add(Request([1] * 60, max_tokens=None, ignore_end=True))
        long_one, other = completions(scheduler.run()).values()
    assert isinstance(long_one.error, ContextError)
    assert (other.finish_reason, len(other.tokens)) == ("context", 64 - 60 + 1)
    with pytest.raises(SisError, match="max_tokens: is 0, but must be at least 1"):
        long.scheduler(max_tokens=0)


def test_nobody_starves(long: LanguageModel) -> None:
    """A prompt of 2,000 tokens under as many short texts as ever come."""
    with long.scheduler(max_tokens=8192) as scheduler:
        for i in range(CHUNK):
            scheduler.add(Request([i % 250] * 3, max_tokens=9, ignore_end=True, priority=1))
        scheduler.step()
        patient = scheduler.add(Request([5] * 2000, max_tokens=1, priority=1))
        for step in range(100):
            for _ in range(100):
                scheduler.add(Request([step] * 40, max_tokens=5, ignore_end=True, priority=1))
            if any(piece.sequence == patient for piece in scheduler.step()):
                break
        else:
            pytest.fail("it still waits after 100 steps")
        assert scheduler.n_waiting > 1000


def test_the_oldest_prompt_moves_in_every_step(long: LanguageModel) -> None:
    with long.scheduler(max_tokens=5 * 2048) as scheduler:
        old = scheduler.add(Request([5] * 2000, max_tokens=1))
        scheduler.step()
        for i in range(4):
            scheduler.add(Request([i] * 2000, max_tokens=1, priority=1))
        for step in range(1, 10):
            scheduler.step()
            assert scheduler.session.length(old) == CHUNK + step * PAGE_SIZE


def test_more_priority_comes_first_and_takes_pages(model: LanguageModel) -> None:
    with model.scheduler(max_tokens=128, reuse=False) as scheduler:
        low = [scheduler.add(Request([i] * 50, max_tokens=10, ignore_end=True)) for i in range(3)]
        found = scheduler.step()
        assert [piece.sequence for piece in found] == low[:2]
        high = scheduler.add(Request([9] * 90, max_tokens=30, ignore_end=True, priority=1))
        found += scheduler.step()
        assert (scheduler.n_running, scheduler.n_waiting) == (1, 3)
        found += scheduler.run()
    ends = [piece.sequence for piece in found if piece.finish_reason]
    assert ends[0] == high
    assert sorted(ends[1:]) == low
    for i in low:
        assert completions(found)[i] == alone(model, Request([i] * 50, max_tokens=10, ignore_end=True))


def test_beginnings_are_reused_in_rows_and_bytes(model: LanguageModel) -> None:
    story = model.tokenize("The cat sat on the mat, and it was a good mat, as mats go, if one likes mats at all.")
    assert len(story) > 2 * PAGE_SIZE
    options: dict[str, Any] = {"max_tokens": 4, "seed": 3, "ignore_end": True}
    with model.scheduler(max_tokens=1024) as scheduler:
        session = scheduler.session

        def run(prompt: list[int], **more: Any) -> tuple[Completion, int, int, int]:
            rows, used = session.stats.rows, session.nbytes
            scheduler.add(Request(prompt, **options | more))
            pieces = list(scheduler.run())
            page = session.nbytes // max(1, 1024 // PAGE_SIZE - session.n_free // PAGE_SIZE)
            return Completion.of(pieces), pieces[0].n_cached, session.stats.rows - rows, (session.nbytes - used) // page

        first, n_cached, rows, pages = run(story)
        assert (n_cached, rows, pages) == (0, len(story) + 3, pages_for(len(story) + 3))
        again, n_cached, rows, pages = run(story)
        assert again == first
        assert (n_cached, rows, pages) == (len(story) - 1, 4, 0)  # its last token gives the logits
        reply = [*story, *first.tokens, 7, 8, 9]
        longer, n_cached, rows, pages = run(reply)
        assert longer == alone(model, Request(reply, **options))
        assert (n_cached, rows) == (len(story) + 3, 4 + 3)
        assert pages == pages_for(len(reply) + 3) - pages_for(len(story) + 3)
        assert scheduler.n_kept == 1  # the one before is a part of it
        branch = [*story[:50], 7, 8, 9]
        other, n_cached, rows, pages = run(branch)
        assert other == alone(model, Request(branch, **options))
        assert (n_cached, rows, pages) == (50, 3 + 3, pages_for(len(branch) + 3) - 50 // PAGE_SIZE)
        for more in ({"salt": "another"}, {"prompt_logprobs": 0}):
            assert run(story, **more)[1] == 0
        assert run(story, salt="another")[1] == len(story) - 1
        n_kept = scheduler.n_kept
        scheduler.add(Request([3] * 120, max_tokens=1))
        for i in range(8):
            scheduler.add(Request([4 + i] * 110, max_tokens=17, ignore_end=True))
        list(scheduler.run())
        assert run(story)[1] == 0  # the least recently used had to make room
        assert scheduler.n_kept >= n_kept


def test_beginnings_are_shared_with_texts_that_run(model: LanguageModel) -> None:
    rules = model.tokenize("You are a cat. You sit on a mat. You answer in one word.")
    n_shared = len(rules) // PAGE_SIZE * PAGE_SIZE
    asked = [Request([*rules, i, i], max_tokens=5, seed=i, ignore_end=True) for i in range(4)]
    wanted = [alone(model, request) for request in asked]
    with model.scheduler(max_tokens=512) as scheduler:
        found = []
        for request in asked:
            scheduler.add(request)
            found += scheduler.step()
            assert scheduler.session.n_free // PAGE_SIZE == 16 - pages_for(len(rules) + 7) - (scheduler.n_running - 1)
        assert [piece.n_cached for piece in found if piece.sequence == 3] == [n_shared]
        assert scheduler.session.stats.rows == 4 * (len(rules) + 2) - 3 * n_shared + 3 + 2 + 1
        scheduler.cancel(0)
        texts = completions([*found, *scheduler.run()])
    assert [texts[i] for i in range(1, 4)] == wanted[1:]


def test_the_least_recently_used_makes_room(model: LanguageModel) -> None:
    with model.scheduler(max_tokens=7 * PAGE_SIZE) as scheduler:

        def n_cached(first: int, then: int | None = None) -> int:
            last = first if then is None else then
            scheduler.add(Request([first] * 50 + [last] * 10, max_tokens=2, ignore_end=True))
            first_piece, *_ = scheduler.run()
            return first_piece.n_cached

        assert [n_cached(first) for first in (1, 2, 3)] == [0, 0, 0]
        assert n_cached(1, then=9) == 50
        scheduler.add(Request([4] * 60, max_tokens=2, ignore_end=True))
        list(scheduler.run())
        assert [n_cached(first) for first in (1, 2)] == [59, 0]


def test_a_text_that_was_shifted_shares_what_it_has_now(model: LanguageModel) -> None:
    request = Request(range(60), max_tokens=60, context="shift", ignore_end=True, seed=1)
    wanted = alone(model, request, n_ctx=72)
    with Scheduler(model.session(n_ctx=72, max_tokens=512)) as scheduler:
        scheduler.add(request)
        found = [piece for _ in range(20) for piece in scheduler.step()]
        scheduler.add(request)
        found += scheduler.run()
        scheduler.add(request)
        texts = completions([*found, *scheduler.run()])
    assert [texts[i] for i in range(3)] == [wanted] * 3


def test_without_reuse_nothing_is_kept(model: LanguageModel) -> None:
    with model.scheduler(reuse=False) as scheduler:
        for _ in range(2):
            scheduler.add(Request([1] * 50, max_tokens=2, ignore_end=True))
            found = scheduler.step()
            scheduler.add(Request([1] * 50, max_tokens=2, ignore_end=True))
            assert [piece.n_cached for piece in [*found, *scheduler.run()]] == [0] * 4
            assert (scheduler.n_kept, scheduler.session.nbytes) == (0, 0)


def test_rows_of_a_prompt(model: LanguageModel) -> None:
    ids = model.tokenize(PROMPTS[3])
    logits = model.logits(ids)
    with model.scheduler(max_tokens=512) as scheduler:
        scheduler.add(Request(ids, max_tokens=3, ignore_end=True))
        scheduler.add(Request(ids, want="logits", max_tokens=3))
        scheduler.add(Request(ids, want="hidden"))
        scheduler.add(Request(ids, want="logits", prompt_logprobs=2))
        found = by_text(scheduler.run())
    assert [len(found[i]) for i in range(4)] == [3, 1, 1, 1]
    for i, wanted in ((1, logits), (2, model.hidden(ids)), (3, logits)):
        np.testing.assert_allclose(found[i][0].rows, wanted, rtol=0, atol=1e-5)
        assert (found[i][0].finish_reason, found[i][0].token, str(found[i][0])) == ("length", None, "")
    assert len(found[3][0].prompt_logprobs) == len(ids) - 1
    with pytest.raises(SisError, match="prompt_logprobs: hidden states have no probabilities"):
        Request(ids, want="hidden", prompt_logprobs=1)


def test_logits_and_hidden_states_take_turns(model: LanguageModel) -> None:
    with model.scheduler(max_tokens=512) as scheduler:
        scheduler.add(Request([1], max_tokens=20, ignore_end=True))
        scheduler.step()
        other = scheduler.add(Request([1, 2, 3], want="hidden"))
        found = [*scheduler.step(), *scheduler.step()]
        assert sorted(piece.sequence for piece in found) == [0, other]


def test_logprobs_of_a_prompt(model: LanguageModel) -> None:
    ids = model.tokenize(PROMPTS[3])
    values = log_softmax(model.logits(ids))
    pieces = list(model.generate(ids, prompt_logprobs=3, max_tokens=2, ignore_end=True))
    assert [len(piece.prompt_logprobs) for piece in pieces] == [len(ids) - 1, 0]
    for place, found in enumerate(pieces[0].prompt_logprobs):
        assert found.token == ids[place + 1]
        assert found.logprob == pytest.approx(values[place, found.token], abs=1e-6)
        assert [top.token for top in found.top] == np.argsort(-values[place], kind="stable")[:3].tolist()


def test_what_is_read_of_a_prompt_survives_giving_way(model: LanguageModel) -> None:
    ids = [7, *range(90)]
    wanted = next(iter(model.generate(ids, prompt_logprobs=1, max_tokens=1)))
    with model.scheduler(max_tokens=128) as scheduler:
        scheduler._budget.rows = 40  # so that it is fed in parts
        scheduler.add(Request(ids, prompt_logprobs=1, max_tokens=1, ignore_end=True))
        assert scheduler.step() == []
        scheduler.add(Request([1] * 100, max_tokens=2, ignore_end=True, priority=1))
        found = by_text(scheduler.run())
    for one, other in zip(found[0][0].prompt_logprobs, wanted.prompt_logprobs, strict=True):
        assert (one.token, one.top[0].token) == (other.token, other.top[0].token)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
    assert scheduler.session.stats.rows == 40 + 101 + 91


def test_shifting_in_company(model: LanguageModel) -> None:
    options = {"context": "shift", "max_tokens": 150}
    wanted = [alone(model, request) for request in requests(model, PROMPTS[:3], **options)]
    assert len(wanted[0].tokens) == 150
    with model.scheduler(max_tokens=300) as scheduler:
        for request in requests(model, PROMPTS[:3], **options):
            scheduler.add(request)
        texts = completions(scheduler.run())
    assert [texts[i] for i in range(3)] == wanted


def test_a_text_of_one_token_shifts_to_its_last_token(long: LanguageModel) -> None:
    always = {"sampler": "greedy", "logit_bias": {7: 1000.0}, "max_tokens": 100}
    for n_ctx, n in ((1, 1), (2, 100), (3, 100), (5, 100)):
        with Scheduler(long.session(n_ctx=n_ctx)) as scheduler:
            scheduler.add(long.request([7], context="shift", **always))
            (done,) = completions(scheduler.run()).values()
        assert (len(done.tokens), done.error) == (n, None)


def test_time_bounds_the_rows_of_prompts(long: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads a thousand rows a second, and texts that wait for a tenth at most."""
    now = [0.0]
    original = StubForward.step

    def step(self: StubForward, batch: Any, cache: Any) -> Any:
        now[0] += batch.n / 1000
        steps.append(batch.n)
        return original(self, batch, cache)

    monkeypatch.setattr(StubForward, "step", step)
    steps: list[int] = []
    with Scheduler(long.session(), stall=0.1, clock=lambda: now[0]) as scheduler:
        scheduler.add(Request([1], max_tokens=60, ignore_end=True))
        scheduler.step()
        scheduler.add(Request([2] * 2000, max_tokens=1))
        while scheduler.busy:
            scheduler.step()
    assert steps[:4] == [1, PAGE_SIZE + 1, 100, 100]
    assert max(steps) == 100


def test_guesses_are_of_the_text_that_they_were_made_in(random_model: Path) -> None:
    with load(random_model, backend="stub", on_error="degrade") as model, model.scheduler(max_tokens=512) as scheduler:
        scheduler.add(Request([1, 2], max_tokens=2, ignore_end=True))
        scheduler.add(Request([1, 999], max_tokens=2, ignore_end=True))
        texts = completions(scheduler.run())
    assert [texts[i].degraded for i in range(2)] == [False, True]


def test_a_step_that_was_repeated_is_a_guess_of_those_in_it(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Registry.of(sis_llama, sis_samplers, sis_tokenizers)

    def trip(*args: object) -> None:
        raise RuntimeError("the kernel tripped")

    with (
        load(random_model, backend="stub", on_error="degrade", registry=parts) as model,
        model.scheduler(max_tokens=512) as scheduler,
    ):
        scheduler.add(Request([1, 2], max_tokens=2, ignore_end=True))
        monkeypatch.setattr(StubForward, "step", trip)
        found = scheduler.step()
        assert scheduler.session.model.backend == "numpy"
        scheduler.add(Request([1, 2], max_tokens=2, ignore_end=True))
        texts = completions([*found, *scheduler.run()])
    assert [texts[i].degraded for i in range(2)] == [True, False]


def test_marks_are_set_at_the_end_of_prompts_and_along_long_ones(
    long: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with long.scheduler() as scheduler:
        marks: list[tuple[int, int]] = []
        session = scheduler.session
        monkeypatch.setattr(session, "mark", lambda number: marks.append((number, session.length(number))))
        scheduler.add(Request([1] * 2500, max_tokens=3, ignore_end=True))
        scheduler.add(Request([2] * 5, max_tokens=3, ignore_end=True))
        list(scheduler.run())
    assert marks == [(0, 2048), (0, 2500), (1, 5)]


def test_a_batch_of_thousands_of_rows_decodes_in_turns(long: LanguageModel) -> None:
    """More texts than a step has rows."""
    with long.scheduler(max_tokens=700 * PAGE_SIZE) as scheduler:
        for i in range(600):
            scheduler.add(Request([i % 250], max_tokens=3, ignore_end=True, seed=i))
        most = 0
        while scheduler.busy:
            rows = scheduler.session.stats.rows
            scheduler.step()
            most = max(most, scheduler.session.stats.rows - rows)
        assert most <= CHUNK
        assert scheduler.session.stats.rows == 600 * 3


@pytest.mark.parametrize("seed", range(2))
def test_a_thousand_operations_against_a_plain_model(model: LanguageModel, seed: int) -> None:
    """The plain model: each text is what it is alone, up to where it was cancelled or had to fail."""
    chance = random.Random(f"{seed} {model.backend}")
    beginnings = [[chance.randrange(250) for _ in range(chance.choice([3, 20, 40, 70]))] for _ in range(3)]

    def prompt() -> list[int]:
        begin = chance.choice(beginnings)
        return begin[: chance.randint(1, len(begin))] + [chance.randrange(3) for _ in range(chance.randint(0, 4))]

    def request() -> Request:
        kind = chance.random()
        return Request(
            prompt() if kind > 0.05 else [],
            [Trips(chance.randint(0, 6))] if kind > 0.9 else [],
            max_tokens=chance.randint(1, 25),
            ignore_end=chance.random() < 0.9,
            seed=chance.randrange(4),
            context=chance.choice(["error", "shift"]),
            want="hidden" if 0.8 < kind < 0.85 else "text",
            prompt_logprobs=1 if 0.85 < kind < 0.9 else None,
            priority=chance.choice([0, 0, 0, 1]),
            salt=chance.choice(["", "", "mine"]),
        )

    asked: dict[int, Request] = {}
    pieces: dict[int, list[Piece]] = {}
    going: set[int] = set()
    n_cached = 0
    with Scheduler(model.session(n_ctx=72, max_tokens=160)) as scheduler:
        for _ in range(1000):
            what = chance.random()
            if what < 0.15 and len(going) < 8:
                given = request()
                number = scheduler.add(given)
                asked[number], pieces[number] = given, []
                going.add(number)
            elif what < 0.18 and going:
                gone = chance.choice(sorted(going))
                going.remove(gone)
                scheduler.cancel(gone)
            else:
                for piece in scheduler.step():
                    assert piece.sequence in going
                    pieces[piece.sequence].append(piece)
                    if piece.finish_reason:
                        going.remove(piece.sequence)
            assert scheduler.n_running + scheduler.n_waiting <= len(going)
            assert not any(scheduler.session.length(text.number) for text in scheduler._waiting)
        for piece in scheduler.run():
            pieces[piece.sequence].append(piece)
        while (kept := scheduler._kept.pop()) is not None:
            scheduler.session.drop(kept)
        assert scheduler.session.nbytes == 0  # no page is lost
        assert len(scheduler._read) == 0
    assert len(asked) > 60
    for number, given in asked.items():
        whole, found = alone(model, given, n_ctx=72), pieces[number]
        tokens = tuple(piece.token for piece in found if piece.token is not None)
        n_cached += found[0].n_cached if found else 0
        if found and found[-1].finish_reason:
            assert (tokens, found[-1].finish_reason) == (whole.tokens, whole.finish_reason)
            assert "".join(found) == whole.text
            assert type(found[-1].error) is type(whole.error)
        else:
            assert tokens == whole.tokens[: len(tokens)]
    assert n_cached > 100


def test_windows_change_no_text(tmp_path: Path) -> None:
    """Layers that keep a window share what they can go back to, and no row is fed behind the scheduler's back."""
    shape = SHAPES["gemma-3-1b"].scaled_down()
    random_model.write_model(shape, tmp_path / "model.gguf", file_type="F32", seed=3)
    chance = random.Random(5)
    begin = [chance.randrange(shape.n_vocab) for _ in range(90)]
    asked = [
        Request([*begin[: 30 * i], i, i], max_tokens=12, seed=i, ignore_end=True) for i in (3, 1, 3, 2, 3, 3, 1, 2)
    ]
    with load(tmp_path / "model.gguf", backend="numpy", kv_type="f32", n_threads=1) as model:
        wanted = [alone(model, request) for request in asked]
        with model.scheduler(max_tokens=384) as scheduler:
            found: list[Piece] = []
            for request in asked:
                scheduler.add(request)
                found += scheduler.step() + scheduler.step()
            found += scheduler.run()
            assert scheduler.session.stats.rows_again == 0
    texts = completions(found)
    assert [texts[i] for i in range(len(asked))] == wanted
    assert sum(pieces[0].n_cached for pieces in by_text(found).values()) >= 90


def test_a_family_may_ask_for_longer_steps(long: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "network", attrs.evolve(long.network, step_rows=1500))
    with long.scheduler() as scheduler:
        scheduler.add(Request([1] * 2000, max_tokens=1))
        list(scheduler.run())
        assert scheduler.session.stats.steps == 2


def test_a_closed_scheduler_says_so(long: LanguageModel) -> None:
    scheduler = long.scheduler()
    scheduler.add(Request([1]))
    scheduler.close()
    scheduler.close()
    with pytest.raises(ClosedError, match="session: is closed"):
        scheduler.add(Request([1]))
    with pytest.raises(ClosedError, match="session: is closed"):
        scheduler.step()


def test_request_errors_of_options_are_raised(long: LanguageModel) -> None:
    with pytest.raises(SisError, match="prompt_logprobs: is -1, but must be at least 0"):
        long.request("x", prompt_logprobs=-1)
    with pytest.raises(SamplerError):
        long.request("x", temperature=-1)


def test_a_stream_that_ends_early_frees_its_cache(long: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Session] = []
    monkeypatch.setattr(Session, "close", lambda self: closed.append(self))
    stream = long.generate("Once", max_tokens=50)
    next(stream)
    assert not closed
    stream.close()  # type: ignore[attr-defined]
    assert len(closed) == 1
    with pytest.raises(SamplerError, match="over the carpet") as raised:
        list(long.stream([Request([1], [Trips()])]))
    assert raised.value.where == "sampler trips"
    assert len(closed) == 2
