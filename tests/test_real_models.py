"""Real models against llama.cpp and transformers (goldens/real, made by tests/oracle/real.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_models

import sis_core
from sis_core import LanguageModel
from sis_core.step import Batch
from sis_core.texts.common import n_common
from sis_core.workbench.evaluate import evaluate

GOLDENS = Path(__file__).parent / "goldens" / "real"
EXACT = 1e-4
EXACT_LONG = 1e-3
"""float32 arithmetic over the same weights as transformers in float64; hundreds of tokens add their errors up."""
CLOSE = 0.01
"""Two logits nearer than this share of the largest are equally good to eight bits."""


class Golden:
    """What the peers computed with a text and its continuation by llama.cpp."""

    def __init__(self, case: str) -> None:
        with np.load(GOLDENS / f"{case}.npz") as golden:
            self.text, self.scale = str(golden["text"]), float(golden["scale"])
            self.prompt, self.continued = golden["prompt"].tolist(), golden["continued"].tolist()
            self.columns, self.llama_cpp, self.transformers = (
                golden[name] for name in ("columns", "llama_cpp", "transformers")
            )
            self.file = next(
                known
                for known in real_models.ALL.values()
                if isinstance(known, real_models.RealFile) and known.name == str(golden["model"])
            )

    def logits(self, model: LanguageModel) -> Any:
        """sis' logits ``(n, k)`` for each continued token, at the golden's columns; one token at a time."""
        cache, at, found = model.new_cache(len(self.prompt) + len(self.continued)), 0, []
        for part in (self.prompt, *([token] for token in self.continued[:-1])):
            found.append(model.step(Batch.of(part, position=at), cache).values[0].copy())
            at += len(part)
        return np.take_along_axis(np.stack(found), self.columns, axis=1)

    def logits_at_once(self, model: LanguageModel) -> Any:
        """The same in one step."""
        ids = self.prompt + self.continued[:-1]
        batch = Batch.of(ids, outputs=range(len(self.prompt) - 1, len(ids)))
        return np.take_along_axis(model.step(batch, model.new_cache(len(ids))).values, self.columns, axis=1)

    def error(self, logits: Any) -> float:
        """The largest difference from transformers, relative to its largest logit."""
        return float(np.abs(logits.astype(np.float64) - self.transformers).max() / self.scale)

    def mean_error(self, logits: Any) -> float:
        """The root of the mean squared difference from transformers, relative to its largest logit."""
        return float(np.sqrt(np.square(logits.astype(np.float64) - self.transformers).mean()) / self.scale)


@pytest.fixture(
    params=[
        "smollm2-chat",
        *(pytest.param(case, marks=pytest.mark.full) for case in ("smollm2-capital", "gemma3-capital", "gemma3-long")),
    ]
)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture
def model(golden: Golden) -> Iterator[LanguageModel]:
    with sis_core.load(real_models.real(golden.file), kv_type="f32") as model:
        yield model


def test_text_continues_as_in_llama_cpp(golden: Golden, model: LanguageModel) -> None:
    assert model.tokenize(golden.text, parse_special=True) == golden.prompt
    logits = golden.logits(model)
    # Both multiply by activations of eight bits. The largest of many errors is a matter of chance, and those of a long
    # prompt grow by chance.
    most = 1.15 if len(golden.prompt) < 100 else 2
    assert golden.mean_error(logits) < most * golden.mean_error(golden.llama_cpp)
    best = np.take_along_axis(golden.columns, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    second, first = np.sort(golden.transformers, axis=1)[:, -2:].T
    sure = first - second > CLOSE * golden.scale
    assert sure.sum() >= len(sure) / 2
    np.testing.assert_array_equal(best[sure], np.array(golden.continued)[sure])


@pytest.mark.full
def test_logits_are_those_of_transformers(golden: Golden) -> None:
    with sis_core.load(real_models.real(golden.file), backend="numpy", kv_type="f32") as model:
        assert golden.error(golden.logits_at_once(model)) < (EXACT if len(golden.prompt) < 100 else EXACT_LONG)


@pytest.mark.full
@pytest.mark.parametrize(("name", "theirs"), json.loads((GOLDENS / "perplexity.json").read_text()).items())
def test_perplexity_is_that_of_llama_perplexity(name: str, theirs: dict[str, Any]) -> None:
    text = (GOLDENS / "golden_bird.txt").read_text("utf-8")
    with sis_core.load(real_models.real(real_models.ALL[name])) as model:
        score = evaluate(model, model.tokenize(text), n_ctx=theirs["n_ctx"])
    assert score.n_chunks == theirs["n_chunks"]
    assert score.perplexity == pytest.approx(theirs["perplexity"], rel=0.01)


def test_turns_are_those_of_llama_server() -> None:
    """Six turns, by the best token: the same prompts, and replies that differ only where two tokens are as good; each
    turn reads what is new and no more."""
    turns = json.loads((GOLDENS / "smollm2-turns.json").read_text("utf-8"))
    messages: list[dict[str, str]] = []
    n_same = n_read = 0
    path = real_models.real(real_models.SMOLLM2)
    with sis_core.load(path, n_ctx=512, speculate="off") as model, model.conversation() as conversation:
        for turn in turns:
            messages.append({"role": "user", "content": turn["question"]})
            known, rows = conversation.ids[:-1], conversation.stats.rows
            usage = conversation.reply(messages, sampler="greedy", max_tokens=24).usage
            assert usage is not None
            reply = list(conversation.ids[usage.n_prompt :])
            assert list(conversation.ids[: usage.n_prompt]) == turn["prompt"]
            assert usage.n_cached == n_common(known, turn["prompt"])
            assert conversation.stats.rows - rows == usage.n_prompt - usage.n_cached + usage.n_generated - 1
            n = n_common(reply, turn["reply"])
            if n < max(len(reply), len(turn["reply"])):
                logits = model.logits(turn["prompt"] + reply[:n])[-1]
                theirs, ours = logits[turn["reply"][n]], logits[reply[n]]
                assert ours - theirs < CLOSE * np.abs(logits).max()
            n_same, n_read = n_same + n, n_read + usage.n_prompt - usage.n_cached
            messages.append({"role": "assistant", "content": turn["content"]})
    assert n_same > sum(len(turn["reply"]) for turn in turns) / 2
    assert n_read < sum(len(turn["prompt"]) for turn in turns) / 2
