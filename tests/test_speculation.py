"""Guesses change the number of steps and nothing else: text, log probabilities, ends and counts are the same."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import sis_llama
import sis_samplers
import sis_tokenizers
from guessing import CHAINS, Knowing, Knows, run
from test_forced import Words, known
from tiny_models import metadata, write_model

from sis_core import hookimpl
from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.errors import PluginError, SisError
from sis_core.registry import Registry
from sis_core.sampler import Sampler
from sis_core.texts.allowance import SHARE
from sis_core.texts.drafting import NOBODY, Drafting, make_drafting
from sis_core.texts.feeding import SessionStats
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Request
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.speculation import Speculation
from sis_core.texts.step_cost import StepCost


class Fails(Knows):
    """Breaks after some tokens."""

    def start(self, context: DraftContext) -> DraftState:
        return _Failing(self, list(context.tokens))


class _Failing(Knowing):
    def accept(self, token: int) -> None:
        super().accept(token)
        if len(self.tokens) > 20:
            raise ValueError("over the carpet")


@pytest.fixture(scope="module", params=["stub", "numpy", "x86"])
def model(request: pytest.FixtureRequest, random_model: Path) -> Iterator[LanguageModel]:
    if request.param == "x86":
        sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
        if (reason := sis_x86.backend.X86Backend().idle_reason()) is not None:
            pytest.skip(f"the x86 backend is idle: {reason}")
    with load(random_model, backend=request.param, kv_type="f32", n_threads=1, batch_invariant=True) as found:
        yield found


PROMPTS = ["Once", "x", "The cat sat on the"]
LIMITS: list[dict[str, Any]] = [
    {"max_tokens": 24},
    {"max_tokens": 9, "logprobs": 2},
    {"max_tokens": None, "context": "error", "ignore_end": True},
    {"max_tokens": 40, "stop": ["e", "t", "a"], "prompt_logprobs": 1},
    {"max_tokens": 80, "context": "shift", "ignore_end": True},
]


def combinations(model: LanguageModel, every: int) -> Iterator[list[Request]]:
    """Batches of one to three requests: every so manyth of all combinations of chain, seed, limit, grammar."""
    choices = itertools.product(CHAINS, range(6), LIMITS, (False, True), (1, 3))
    for at, (chain, seed, limits, words, n_texts) in enumerate(choices):
        if at % every == 0:
            samplers = [*([Words()] if words else []), *cast(Any, model.request("x", samplers=chain).samplers)]
            yield [
                model.request(PROMPTS[(i + seed) % 3], seed=seed + 10 * i, samplers=samplers, **limits)
                for i in range(n_texts)
            ]


def same_with_and_without(model: LanguageModel, every: int) -> None:
    count = ahead = wasted = 0
    for requests in combinations(model, every):
        wanted, plain, ids = run(model, requests, n_ctx=48, max_tokens=256)
        drafting = Drafting((Knows(ids, wrong_every=4),))
        found, quick, _ = run(model, requests, drafting, n_ctx=48, max_tokens=256)
        assert found == wanted
        assert quick.steps <= plain.steps
        count += len(requests)
        if not any(isinstance(sampler, Words) for sampler in requests[0].samplers):  # nothing but guesses
            ahead, wasted = ahead + quick.rows_ahead, wasted + quick.rows_wasted
    assert count * every >= 500
    assert 0.3 * ahead <= wasted <= 0.7 * ahead


def test_the_same_with_and_without_guesses(model: LanguageModel) -> None:
    same_with_and_without(model, every=37 if model.backend != "numpy" else 149)


@pytest.mark.full
def test_all_combinations_with_and_without_guesses(model: LanguageModel) -> None:
    same_with_and_without(model, every=1)


def test_native_rows_of_one_text_have_the_bits_of_single_rows() -> None:
    """Without `batch_invariant`: also where instructions for many rows have other bits, as AMX has."""
    sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
    if (reason := sis_x86.backend.X86Backend().idle_reason()) is not None:
        pytest.skip(f"the x86 backend is idle: {reason}")
    with load("tiny", backend="x86", n_ctx=256, n_threads=1) as model:
        for seed in range(3):
            requests = [model.request("Once", seed=seed, max_tokens=80, temperature=1.3, logprobs=2, ignore_end=True)]
            wanted, _, ids = run(model, requests)
            found, stats, _ = run(model, requests, Drafting((Knows(ids, most=16, wrong_every=11),)))
            assert found == wanted
            assert stats.rows_ahead > 60


def test_a_full_cache_gives_up_guesses_first(model: LanguageModel) -> None:
    requests = [model.request(p, seed=i, max_tokens=60, ignore_end=True, temperature=1.2) for i, p in enumerate("xyz")]
    wanted, _, ids = run(model, requests, n_ctx=96, max_tokens=128)
    found, _, _ = run(model, requests, Drafting((Knows(ids, most=16, wrong_every=50),)), n_ctx=96, max_tokens=128)
    assert found == wanted


def test_a_drafter_that_fails_is_left_out(model: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    requests = [model.request("Once", seed=1, max_tokens=40, ignore_end=True, temperature=1.2)]
    wanted, _, ids = run(model, requests)
    with caplog.at_level(logging.WARNING):
        found, _, _ = run(model, requests, Drafting((Fails(ids),)))
    assert found == wanted
    assert "drafter knows failed and is left out: over the carpet" in caplog.text


def test_guesses_that_are_no_tokens_are_not_fed(model: LanguageModel) -> None:
    class Wild(Knows):
        def start(self, context: DraftContext) -> DraftState:
            return SimpleNamespace(  # type: ignore[return-value]
                propose=lambda k: [65, 10**9, -1], accept=lambda token: None
            )

    requests = [model.request("Once", seed=1, max_tokens=10, ignore_end=True)]
    assert run(model, requests, Drafting((Wild(),)))[0] == run(model, requests)[0]


@pytest.mark.parametrize(
    ("guess", "warning"),
    [
        (np.array([65, 66, 67]), ""),
        (np.array([65, 10**9]), ""),
        (iter([65, 66]), ""),
        ([1.5, 2.5], "'float' object cannot be interpreted as an integer"),
        (np.array([65.0]), "cannot be interpreted as an integer"),
        ("ab", "'str' object cannot be interpreted as an integer"),
        (None, "'NoneType' object is not iterable"),
    ],
)
def test_guesses_of_any_kind_leave_texts_as_they_are(
    model: LanguageModel, guess: Any, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Knows):
        def start(self, context: DraftContext) -> DraftState:
            return SimpleNamespace(propose=lambda k: guess, accept=lambda token: None)  # type: ignore[return-value]

    requests = [model.request("Once", seed=i, max_tokens=10, ignore_end=True) for i in range(2)]
    assert run(model, requests, Drafting((Odd(),)))[0] == run(model, requests)[0]
    assert ("is left out" in caplog.text) is bool(warning)
    assert warning in caplog.text


def test_who_cannot_guess_for_a_model_is_told_at_loading(model: LanguageModel) -> None:
    class Picky(Knows):
        def start(self, context: DraftContext) -> DraftState:
            raise RuntimeError(f"not with {context.n_vocab} tokens")

    with pytest.raises(
        PluginError, match=rf"drafter knows failed: RuntimeError: not with {model.config.n_vocab} tokens"
    ):
        Drafting((Picky(),)).check(model)
    Drafting((Picky(),), measured=True).check(model)


# What pays ------------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes by rows: a step costs ``fixed`` seconds and ``each`` for a row."""

    def __init__(self, model: LanguageModel, fixed: float, each: float) -> None:
        self.now, self.fixed, self.each, self.model = 0.0, fixed, each, model

    def __call__(self) -> float:
        return self.now


def measured_steps(
    model: LanguageModel, fixed: float, each: float, wrong_every: int, *, guess: float = 0.0, n_tokens: int = 100
) -> tuple[int, SessionStats, float]:
    """Steps without and with measured guesses on a machine of which a step and a guess take so long; and the time."""
    requests = [model.request("Once", seed=1, max_tokens=n_tokens, ignore_end=True, temperature=1.2)]
    wanted, plain, ids = run(model, requests)
    clock = Clock(model, fixed, each)
    session = model.session()

    class Takes(Knows):
        def start(self, context: DraftContext) -> DraftState:
            clock.now += guess
            return _Taking(self, list(context.tokens))

    class _Taking(Knowing):
        def propose(self, k: int) -> list[int]:
            clock.now += guess
            return super().propose(k)

    step = session.run

    def timed(parts: Any, *options: Any) -> Any:
        clock.now += fixed + each * sum(len(part.tokens) for part in parts)
        return step(parts, *options)

    session.run = timed  # type: ignore[method-assign]
    drafting = Drafting((Takes(ids, wrong_every=wrong_every),), measured=True)
    with Scheduler(session, reuse=False, drafting=drafting, clock=clock) as scheduler:
        scheduler.add(requests[0])
        assert [known(piece) for piece in scheduler.run()] == wanted[0]
        return plain.steps, session.stats, clock.now


@pytest.mark.parametrize("model", ["stub"], indirect=True)
def test_guesses_are_fed_where_that_pays(model: LanguageModel) -> None:
    n_plain, cheap, _ = measured_steps(model, fixed=1.0, each=0.05, wrong_every=1000)
    assert cheap.steps < 0.4 * n_plain
    _, dear, _ = measured_steps(model, fixed=0.0, each=1.0, wrong_every=1000)
    assert dear.rows <= 1.05 * (n_plain + 3)
    _, wrong, _ = measured_steps(model, fixed=1.0, each=0.3, wrong_every=1)
    assert wrong.rows_ahead == 0  # never right: seen without feeding any


@pytest.mark.parametrize("model", ["stub"], indirect=True)
def test_what_guessing_costs_where_it_gains_nothing(model: LanguageModel) -> None:
    """However long a drafter takes: no more than a share of the steps' time, and one guess."""
    for guess in (0.001, 0.05, 0.6):
        n_plain, stats, seconds = measured_steps(model, 1.0, 0.0, wrong_every=1, guess=guess, n_tokens=240)
        assert stats.rows_ahead == 0
        assert n_plain + 2 * guess <= seconds <= n_plain * (1 + SHARE) + 2 * guess
    n_plain, stats, seconds = measured_steps(model, 1.0, 0.0, wrong_every=1000, guess=0.05, n_tokens=240)
    assert seconds < 0.5 * n_plain  # what it has gained pays for it


@pytest.mark.parametrize("model", ["stub"], indirect=True)
def test_what_is_measured_chooses_no_bits(model: LanguageModel) -> None:
    """Several texts are guessed where rows have the same bits alone and in company, which is so if it was asked for."""
    for invariant in (True, False):
        forward = SimpleNamespace(batch_invariant=invariant)
        session = cast(Any, SimpleNamespace(model=SimpleNamespace(forward=forward)))
        speculation = Speculation(session, Drafting((Knows(),), measured=True), lambda: 0.0)
        assert speculation._bits_are_kept(1)
        assert speculation._bits_are_kept(2) == invariant


def test_the_cost_of_a_step() -> None:
    cost = StepCost()

    def seconds(rows: int) -> float:
        found = cost.of(rows)
        assert found is not None
        return found

    assert cost.of(1) is None
    for _ in range(3):
        cost.measure(1, 2.0)
    assert seconds(1) == 2.0
    assert 2.0 < seconds(2) < seconds(8) < 16.0
    expected = seconds(4)
    cost.measure(4, 100.0)
    assert seconds(4) == expected  # one step that was disturbed
    cost.measure(4, 3.0)
    cost.measure(4, 3.1)
    assert seconds(4) == 3.1
    assert seconds(64) > seconds(32)
    for _ in range(600):
        cost.measure(1, 2.0)
    assert seconds(4) == expected  # long ago


# What is asked for ----------------------------------------------------------------------------------------------------


class Plugin:
    @hookimpl
    def sis_register_drafters(self) -> list[type[Drafter]]:
        return [Knows]


def test_what_speculate_means() -> None:
    registry = Registry.of(Plugin())
    assert make_drafting(registry, "off") is make_drafting(registry, None) is NOBODY
    assert make_drafting(registry, "knows:most=3,wrong_every=2").drafters == (Knows(most=3, wrong_every=2),)
    with pytest.raises(PluginError, match=r"no drafter is installed\. `pip install sis-drafters`"):
        make_drafting(registry, "auto")
    with pytest.raises(PluginError, match="no installed plugin brings the drafter 'nobody'"):
        make_drafting(registry, "nobody")
    with pytest.raises(SisError, match="knows has no field 'least'"):
        make_drafting(registry, "knows:least=3")


def test_drafters_that_cost_nothing_are_the_default() -> None:
    sis_drafters = pytest.importorskip("sis_drafters", reason="sis-drafters brings what is asked for here")
    drafting = make_drafting(Registry.of(sis_drafters), None)
    assert drafting.measured
    assert [drafter.name for drafter in drafting.drafters] == ["suffix"]


def test_a_model_is_loaded_with_a_drafter(tmp_path: Path) -> None:
    registry = Registry.of(sis_llama, sis_samplers, sis_tokenizers, Plugin())
    path = write_model(tmp_path / "m.gguf", metadata())
    with load(path, backend="stub", registry=registry, speculate="knows:most=2") as found:
        assert found.drafting.drafters == (Knows(most=2),)
        with found.scheduler() as scheduler:
            assert scheduler._speculation.guesses


def test_states_that_sum_up_a_text_go_back_to_a_mark() -> None:
    """The session feeds again, by itself, what was right."""
    from test_custom_state import Bound, network

    bound = Bound(network())
    samplers: list[Sampler] = [sis_samplers.Temperature(1.2)]
    model = cast(LanguageModel, bound)
    bound.adapters = frozenset()  # type: ignore[attr-defined]
    bound.tokenizer = None  # type: ignore[attr-defined]
    from sis_core.texts.session import Session
    from sis_core.texts.silent import SilentTokenizer

    bound.tokenizer = SilentTokenizer(bound.config.n_vocab)  # type: ignore[attr-defined]

    def text(drafting: Drafting) -> tuple[list[int | None], SessionStats]:
        session = Session(model, max_tokens=512)
        with Scheduler(session, reuse=False, drafting=drafting) as scheduler:
            scheduler.add(Request(list(range(40)), samplers, max_tokens=60, seed=4))
            return [piece.token for piece in scheduler.run()], session.stats

    wanted, _ = text(NOBODY)
    ids = [*range(40), *cast(list[int], wanted)]
    found, stats = text(Drafting((Knows([ids], wrong_every=4),)))
    assert found == wanted
    assert stats.rows_wasted > 0
    assert 0 < stats.rows_again < 120


def test_the_program_and_a_chat_say_the_same(tmp_path: Path) -> None:
    sis_drafters = pytest.importorskip("sis_drafters", reason="sis-drafters brings what is asked for here")
    assert sis_drafters
    texts, steps = [], []
    for speculate in ("off", "lookup:shortest=1", "suffix", "auto"):
        with load("tiny", n_ctx=512, speculate=speculate) as model, model.conversation() as conversation:
            replies = []
            for question in ("Tell a story about a hen.", "Go on."):
                events = conversation.stream([{"role": "user", "content": question}], seed=2, max_tokens=40)
                replies.append("".join(str(event) for event in events))
            texts.append(replies)
            steps.append(conversation._scheduler.session.stats.steps)
    assert texts.count(texts[0]) == 4
    assert steps[2] != steps[0]
