"""The seam itself: a real model through Batch, Forward and Cache, with several sequences, a rollback and a fork."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sis_llama

from sis_core.backend import BackendOptions, Cache
from sis_core.errors import ContextError, MemoryLimitError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch, Run


@pytest.fixture(scope="module")
def model(test_data: Path) -> Iterator[Model]:
    path = test_data / "models" / "stories260K.gguf"
    with open_model(Model, path, Registry.of(sis_llama), options=BackendOptions(kv_type="f32")) as opened:
        yield opened


@pytest.fixture(scope="module")
def goldens(test_data: Path) -> dict[str, dict[str, list[int]]]:
    loaded: dict[str, dict[str, list[int]]] = json.loads((test_data / "models" / "goldens.json").read_text())
    return loaded


BOS_ONLY, ONCE = "stories260K (f32) BOS only, 200 steps", 'stories260K (f32) "Once upon a time"'


def greedy(model: Model, cache: Cache, sequence: int, prompt: list[int], n: int) -> list[int]:
    """``n`` greedy tokens after ``prompt``, which follows what the cache holds of the sequence."""
    batch = Batch.of(prompt, position=cache.length(sequence), sequence=sequence)
    found: list[int] = []
    while True:
        found.append(int(model.step(batch, cache).values[0].argmax()))
        if len(found) == n:
            return found
        batch = Batch.of(found[-1:], position=cache.length(sequence), sequence=sequence)


def test_200_greedy_tokens_from_bos(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    golden = goldens[BOS_ONLY]["greedy_ids"]
    assert golden[:1] + greedy(model, model.new_cache(256), 0, golden[:1], 200) == golden


def test_two_sequences_in_each_step(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    texts = {3: goldens[BOS_ONLY]["greedy_ids"][:65], 8: goldens[ONCE]["greedy_ids"]}
    prompts = {3: 1, 8: len(goldens[ONCE]["prompt_ids"])}
    cache = model.new_cache(256)
    runs = tuple(Run(s, 0, n) for s, n in prompts.items())
    n_steps = 0
    while runs:
        tokens = [token for s, start, n in runs for token in texts[s][start : start + n]]
        last = np.cumsum([run.n for run in runs]) - 1
        values = model.step(Batch(tokens, runs, last), cache).values
        n_steps += 1
        following = []
        for (sequence, start, n), logits in zip(runs, values, strict=True):
            at = start + n
            assert int(logits.argmax()) == texts[sequence][at], f"token {at} of sequence {sequence}"
            if at + 1 < len(texts[sequence]):
                following.append(Run(sequence, at, 1))
        runs = tuple(following)
    assert n_steps == 64


def test_truncate_goes_back(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    ids = goldens[ONCE]["greedy_ids"]
    cache = model.new_cache(128)
    first = model.step(Batch.of(ids[:40]), cache).values
    cache.truncate(0, 7)
    wrong = model.step(Batch.of([5, 6, 7], position=7), cache).values
    cache.truncate(0, 7)
    again = model.step(Batch.of(ids[7:40], position=7), cache).values
    assert not np.allclose(wrong, first)
    np.testing.assert_allclose(again, first, rtol=0, atol=2e-5)


def test_fork_shares_bytes_until_written(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    ids = goldens[ONCE]["greedy_ids"]
    cache = model.new_cache(256)
    model.step(Batch.of(ids[:40]), cache)
    before = cache.nbytes
    cache.fork(0, 1, 40)
    assert cache.nbytes == before
    branch = model.step(Batch.of([11], position=40, sequence=1), cache).values
    assert before < cache.nbytes < 2 * before  # only the page that both would write was copied
    trunk = [*ids[40:41], *greedy(model, cache, 0, ids[40:41], 10)]
    assert trunk == ids[40:51]
    fresh = model.new_cache(256)
    np.testing.assert_allclose(model.step(Batch.of([*ids[:40], 11]), fresh).values, branch, rtol=0, atol=2e-5)


def test_save_and_load(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    ids = goldens[ONCE]["greedy_ids"]
    cache, other = model.new_cache(128), model.new_cache(128)
    model.step(Batch.of(ids[:33]), cache)
    other.load(4, cache.save(0))
    assert greedy(model, other, 4, ids[33:34], 5) == ids[34:39]


def test_a_failed_step_leaves_the_cache_as_it_was(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    ids = goldens[ONCE]["greedy_ids"]
    cache = model.new_cache(64)
    model.step(Batch.of(ids[:33]), cache)
    used = cache.nbytes
    with pytest.raises(ContextError, match="does not continue a sequence of 33"):
        model.step(Batch.of([1], position=40), cache)
    with pytest.raises(MemoryLimitError, match="cache of 64 tokens is full"):
        model.step(Batch.of([1] * 40, position=33), cache)
    assert (cache.nbytes, cache.length(0)) == (used, 33)
    assert greedy(model, cache, 0, ids[33:34], 5) == ids[34:39]


def test_outputs_none_several_and_hidden(model: Model, goldens: dict[str, dict[str, list[int]]]) -> None:
    ids = goldens[ONCE]["greedy_ids"][:10]
    whole = model.step(Batch.of(ids, outputs=range(10)), model.new_cache(64)).values
    assert whole.shape == (10, model.config.n_vocab)
    cache = model.new_cache(64)
    assert model.step(Batch.of(ids[:5], outputs=[]), cache).values.shape == (0, model.config.n_vocab)
    some = model.step(Batch.of(ids[5:], position=5, outputs=[4, 1]), cache).values
    np.testing.assert_allclose(some, whole[[9, 6]], rtol=0, atol=2e-5)
    hidden = Batch(ids, (Run(0, 0, 10),), [9], want="hidden")
    assert model.step(hidden, model.new_cache(64)).values.shape == (1, model.config.n_embd)
