"""A backend that goes on by itself with a greedy text: the same tokens and the same cache as step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guessing import Knows, run
from test_speculation_native import KIND, REGISTRY, Bare, pytestmark  # noqa: F401 - the mark is this module's too
from tiny_models import tensors, write_model

from sis_core.backend import BackendOptions, Cache
from sis_core.backends.bind import bind
from sis_core.cache.pages import PAGE_SIZE
from sis_core.errors import BackendError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.step import Batch, Best, MultiStepLimit, Run
from sis_core.testing.networks import N_VOCAB, VARIANTS, Variant, random_network
from sis_core.texts import multi_step
from sis_core.texts.chain_text import make_chain
from sis_core.texts.drafting import Drafting
from sis_core.texts.multi_step import DOUBLINGS, MultiStepSize
from sis_core.texts.request import Request

WHOLE = [variant for variant in VARIANTS if variant.format.name == "F32"] or list(VARIANTS)
PROMPT = [5, 9, 40, 3, 77]


def packed(variant: Variant = VARIANTS[0]) -> Bare:
    """A model all of whose weights are packed: while they are, nobody goes on."""
    model = Bare(random_network(variant, n_ctx=256))
    assert KIND is not None
    model.config.n_ctx_train = 256
    model.forward = bind(model.network, [KIND()], BackendOptions(n_threads=1, pack=True))
    return model


def greedy(model: Bare | Model, cache: Cache, ids: list[int], more: MultiStepLimit | None = None) -> list[Best]:
    batch = Batch(ids, (Run(0, cache.length(0), len(ids)),), [len(ids) - 1], greedy=True, multi_step=more)
    return list(model.step(batch, cache).best)


def single_steps(model: Bare, n: int) -> tuple[Cache, list[Best]]:
    cache = model.new_cache(256)
    found = greedy(model, cache, PROMPT)
    while len(found) < n:
        found += greedy(model, cache, [found[-1].token])
    return cache, found


@pytest.mark.parametrize("variant", WHOLE, ids=lambda variant: variant.name)
def test_the_bits_of_single_steps(variant: Variant) -> None:
    model = packed(variant)
    wanted_cache, wanted = single_steps(model, 3 * PAGE_SIZE)
    cache = model.new_cache(256)
    found, most = greedy(model, cache, PROMPT), 0
    while (left := len(wanted) - len(found)) > 0:
        start = cache.length(0)
        step = greedy(model, cache, [found[-1].token], MultiStepLimit(min(left - 1, 13)) if left > 1 else None)
        assert cache.length(0) == start + len(step)
        assert start // PAGE_SIZE == (cache.length(0) - 1) // PAGE_SIZE  # it takes no page that a step would not take
        found += step
        most = max(most, len(step))
    assert np.array_equal(np.array(found), np.array(wanted))
    assert most == 14
    assert b"".join(cache.save(0)) == b"".join(wanted_cache.save(0))


def test_nothing_comes_after_an_end() -> None:
    model = packed()
    _, wanted = single_steps(model, 20)
    tokens = [best.token for best in wanted]
    for end in (tokens[1], tokens[7], N_VOCAB - 1):
        n = tokens[1:].index(end) + 1 if end in tokens[1:] else 16
        cache = model.new_cache(256)
        first = greedy(model, cache, PROMPT)
        found = greedy(model, cache, [first[-1].token], MultiStepLimit(15, frozenset({end, 2**31 - 1})))
        assert [best.token for best in found] == tokens[1 : 1 + min(n, 16)]
        assert cache.length(0) == len(PROMPT) + len(found)


def test_nothing_comes_after_what_is_not_finite(tmp_path: Path) -> None:
    """A file where the row of a token that the text comes to is NaN."""
    weights = tensors()
    tokens: list[int] = []
    late = 0
    for n in range(2):
        path = write_model(tmp_path / f"{n}.gguf", None, weights)
        with open_model(Model, path, REGISTRY, options=BackendOptions(pack=True)) as model:
            cache = model.new_cache(256)
            found = greedy(model, cache, PROMPT)
            found += greedy(model, cache, [found[0].token], MultiStepLimit(11))
            assert cache.length(0) == len(PROMPT) + len(found) - 1
        if n == 0:
            tokens = [best.token for best in found]
            assert len(tokens) == 13
            late = max(tokens.index(token) for token in {*tokens[:-1]} - {*PROMPT})
            weights["token_embd.weight"][tokens[late]] = np.nan
    assert late > 0
    assert [best.token for best in found] == [*tokens[: late + 1], 0]
    assert np.isnan(found[-1].highest)


def test_what_may_not_be_asked_for() -> None:
    for batch in (
        {"tokens": [1], "runs": (Run(0, 0, 1),), "outputs": [0]},
        {"tokens": [1, 2], "runs": (Run(0, 0, 2),), "outputs": [1], "greedy": True},
        {"tokens": [1], "runs": (Run(0, 0, 1),), "outputs": [], "greedy": True},
    ):
        with pytest.raises(BackendError, match="several steps at once begin with a greedy one of one row"):
            Batch(**batch, multi_step=MultiStepLimit(3))


LIMITS: list[dict[str, Any]] = [
    {"max_tokens": 1},
    {"max_tokens": 40},
    {"max_tokens": None},
    {"max_tokens": 150, "context": "shift"},
    {"max_tokens": 150, "context": "sinks:4"},
    {"max_tokens": 40, "logprobs": 2},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_texts_are_the_same(limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed()
    requests = [Request(PROMPT, make_chain(REGISTRY, samplers="greedy"), **limits)]
    monkeypatch.setattr(multi_step, "PAUSE", 0)
    wanted, plain, ids = run(model, requests, n_ctx=96, max_tokens=256)
    monkeypatch.setattr(multi_step, "PAUSE", 1e9)
    found, quick, _ = run(model, requests, n_ctx=96, max_tokens=256)
    assert found == wanted
    assert plain.rows
    assert (quick.steps, quick.rows) == (plain.steps, plain.rows)
    if "logprobs" not in limits and limits["max_tokens"] != 1:
        assert quick.rows_ahead > quick.rows // 3
    drafting = Drafting((Knows(ids, wrong_every=4, n_vocab=N_VOCAB),), measured=True)
    found, _, _ = run(model, requests, drafting, n_ctx=96, max_tokens=256)
    assert found == wanted


def test_texts_in_company_go_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed()
    requests = [
        Request([*PROMPT, i], make_chain(REGISTRY, samplers="greedy"), max_tokens=20 + 10 * i) for i in range(2)
    ]
    wanted = [run(model, [request], n_ctx=64, max_tokens=256)[0][0] for request in requests]
    monkeypatch.setattr(multi_step, "PAUSE", 1e9)
    found, stats, _ = run(model, requests, n_ctx=64, max_tokens=256)
    assert [[piece[0] for piece in text] for text in found] == [[piece[0] for piece in text] for text in wanted]
    assert 0 < stats.rows_ahead <= 10  # the longer one's, once it is alone


def test_how_many_at_once() -> None:
    steps = MultiStepSize()
    assert steps.n() == 0  # nothing is known yet
    steps.measure(1, multi_step.PAUSE / 10)
    assert steps.n() == 9
    steps.measure(10, multi_step.PAUSE / 1000)
    assert steps.n() == (1 << DOUBLINGS) - 1 == PAGE_SIZE - 1
    steps.guessed()
    assert [steps.n() for _ in range(6)] == [1, 3, 7, 15, 31, 31]
    steps.measure(1, 10 * multi_step.PAUSE)
    assert steps.n() == 0
