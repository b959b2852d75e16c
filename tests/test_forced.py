"""Forced tokens: fewer steps, and nothing else is different."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import numpy as np
import pytest

from sis_core.arrays import F32
from sis_core.errors import SamplerError
from sis_core.sampler import Filter, Sampler, SamplerContext, SamplerState, keep
from sis_core.texts.language_model import LanguageModel, load
from sis_core.texts.request import Piece, Request
from sis_core.texts.scheduler import Scheduler

WORDS = (b"the cat", b" sat", b" on the mat", b"</s>")


@attrs.frozen
class Words(Sampler):
    """After each token that it leaves free one of some words is forced."""

    name = "words"
    order = 190
    words: Sequence[bytes] = WORDS
    offers: bool = True  # else it forces in silence, as a sampler that knows nothing of this
    learning: bool = False

    def start(self, context: SamplerContext) -> SamplerState:
        return _Spelling(self)


class _Spelling(SamplerState):
    def __init__(self, options: Words, ahead: Sequence[int] = ()) -> None:
        self.options, self.ahead, self.learns = options, tuple(ahead), options.learning  # type: ignore[misc]

    def forced(self) -> Sequence[int]:
        return self.ahead if self.options.offers else ()

    def apply(self, logits: F32) -> None:
        if self.ahead:
            keep(logits, np.array(self.ahead[:1]))

    def accept(self, token: int) -> None:
        self.ahead = self.ahead[1:] if self.ahead else tuple(self.options.words[token % len(self.options.words)])

    def copy(self) -> Self:
        return type(self)(self.options, self.ahead)


@attrs.frozen
class Bans(Filter):
    """Forbids one token, as a bias does."""

    name = "bans"
    order = 100
    token: int = ord("m")

    def apply(self, logits: F32) -> None:
        logits[self.token] = -np.inf


@attrs.frozen
class First(Filter):
    """Keeps the likeliest tokens, whatever comes later in the chain."""

    name = "first"
    order = 200

    def apply(self, logits: F32) -> None:
        keep(logits, np.sort(np.argsort(logits)[-40:]))


@pytest.fixture(scope="module", params=["stub", "numpy", "x86"])
def model(request: pytest.FixtureRequest, random_model: Path) -> Iterator[LanguageModel]:
    if request.param == "x86":
        sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
        if (reason := sis_x86.backend.X86Backend().idle_reason()) is not None:
            pytest.skip(f"the x86 backend is idle: {reason}")
    with load(random_model, backend=request.param, kv_type="f32", n_threads=1) as found:
        yield found


def run(model: LanguageModel, requests: Sequence[Request], **options: Any) -> tuple[list[list[Any]], int, int]:
    """What is known of every piece, text by text; the model's steps, and their rows."""
    found: list[list[Any]] = [[] for _ in requests]
    with Scheduler(model.session(**options), reuse=False) as scheduler:
        for request in requests:
            scheduler.add(request)
        for piece in scheduler.run():
            found[piece.sequence].append(known(piece))
        return found, scheduler.session.stats.steps, scheduler.session.stats.rows


def known(piece: Piece) -> Any:
    return str(piece), {name: str(value) for name, value in vars(piece).items()}


def request(model: LanguageModel, *chain: Sampler, prompt: str = "Once", **options: Any) -> Request:
    return model.request(prompt, samplers=list(chain), **{"seed": 3, "max_tokens": 40, **options})


def temperature(model: LanguageModel) -> Sampler:
    made: Sampler = model.registry.get("samplers", "temperature")(1.5)
    return made


LIMITS: list[dict[str, Any]] = [
    {},
    {"logprobs": 3},
    {"max_tokens": 17},
    {"stop": ["cat s", "n the m"]},
    {"ignore_end": True, "max_tokens": None, "context": "error"},
    {"ignore_end": True, "max_tokens": 300, "context": "shift"},
    {"prompt_logprobs": 2, "prompt": "A prompt"},
]


@pytest.mark.parametrize("options", LIMITS, ids=lambda options: ",".join(options) or "plain")
def test_the_same_text_in_fewer_steps(model: LanguageModel, options: dict[str, Any]) -> None:
    for learning in (False, True):
        plain = [request(model, Words(offers=False), temperature(model), **options)]
        quick = [request(model, Words(learning=learning), temperature(model), **options)]
        wanted, n_plain, rows_plain = run(model, plain)
        found, n_quick, rows_quick = run(model, quick)
        assert found == wanted
        assert n_quick < 0.5 * n_plain
        if options.get("context") != "shift":
            assert rows_quick <= rows_plain + 8  # some that a limit cut off


def test_texts_beside_each_other(model: LanguageModel) -> None:
    """Each at its own pace; with one that is not forced, and prompts of different lengths."""
    with model_invariant(model) as same:
        prompts = ["x", "Once", "A longer prompt than the others, by far.", "y"]

        def requests(offers: bool) -> list[Request]:
            return [
                request(
                    same, *([Words(offers=offers)] * (i != 1)), temperature(same), prompt=prompt, seed=i, logprobs=i % 2
                )
                for i, prompt in enumerate(prompts)
            ]

        assert run(same, requests(True), max_tokens=512)[0] == run(same, requests(False), max_tokens=512)[0]


def model_invariant(model: LanguageModel) -> LanguageModel:
    return load(model.path, backend=model.backend, kv_type="f32", n_threads=1, batch_invariant=True)


@pytest.mark.parametrize("chain", [(Bans(), Words()), (First(), Words())], ids=["bias", "truncation"])
def test_a_forced_token_that_is_forbidden_fails_where_it_stands(model: LanguageModel, chain: Any) -> None:
    silent = [attrs.evolve(sampler, offers=False) if isinstance(sampler, Words) else sampler for sampler in chain]
    wanted = run(model, [request(model, *silent, temperature(model))])[0]
    found = run(model, [request(model, *chain, temperature(model))])[0]
    assert wanted[0][-1][1]["finish_reason"] == "error"
    assert "every token is forbidden" in wanted[0][-1][1]["error"]
    assert found == wanted


def test_a_sampler_that_breaks_its_word_is_an_error(model: LanguageModel) -> None:
    class Lies(_Spelling):
        def apply(self, logits: F32) -> None:
            keep(logits, np.array([65]))

    class Liar(Words):
        def start(self, context: SamplerContext) -> SamplerState:
            return Lies(self)

    with pytest.raises(SamplerError, match="was forced, and token 65 was chosen"):
        list(model.stream([request(model, Liar())]))


def test_no_room_for_what_is_forced(model: LanguageModel) -> None:
    """Two texts fill the cache: feeding ahead is given up before anybody gives way."""
    with model_invariant(model) as same:

        def requests(offers: bool) -> list[Request]:
            return [
                request(same, Words(offers=offers), temperature(same), seed=i, max_tokens=90, ignore_end=True)
                for i in range(2)
            ]

        wanted, found = (run(same, requests(offers), n_ctx=128, max_tokens=160)[0] for offers in (False, True))
        assert found == wanted
