"""States: forced tokens, copies, ends, tokens from outside, threads, and what is kept for how long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any, cast

import numpy as np
import pytest
import sis_grammar
import small_vocabularies
from attrs import evolve
from llguidance import LLMatcher
from sis_grammar import state as state_module
from sis_grammar import vocabulary as vocabulary_module
from sis_grammar.sampler import Grammar
from sis_tokenizers.bpe import build_bpe

from sis_core.arrays import F32
from sis_core.errors import SamplerError
from sis_core.registry import Registry
from sis_core.sampler import SamplerContext, SamplerState, draw
from sis_core.tokenizer import Tokenizer

Started = Callable[..., SamplerState]
Follow = Callable[[SamplerState, int], tuple[list[int], bytes]]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "address": {
            "type": "object",
            "properties": {
                "the street": {"type": "string", "maxLength": 12},
                "number": {"type": "integer", "maximum": 999},
            },
            "required": ["the street", "number"],
            "additionalProperties": False,
        },
        "keeper of the lighthouse": {"type": "boolean"},
    },
    "required": ["name", "address", "keeper of the lighthouse"],
    "additionalProperties": False,
}


def mask(state: SamplerState, tokenizer: Tokenizer) -> list[int]:
    logits = np.zeros(tokenizer.n_vocab, np.float32)
    state.apply(logits)
    return np.flatnonzero(logits == 0).tolist()


def logits_at(tokenizer: Tokenizer, n_before: int) -> F32:
    """A model's answer, which depends on the place alone."""
    generator = np.random.Generator(np.random.Philox(key=3, counter=n_before))
    return generator.standard_normal(tokenizer.n_vocab).astype(np.float32)


def test_forced_tokens_change_neither_text_nor_state(tokenizer: Tokenizer, start: Started) -> None:
    """One text is chosen token by token; the other takes what is forced without looking at logits."""
    n_tokens = n_steps = 0
    for seed in range(8):

        def chosen(state: SamplerState, n_before: int, seed: int = seed) -> int:
            logits = logits_at(tokenizer, n_before)
            state.apply(logits)
            token = draw(logits, seed, n_before)
            state.accept(token)
            return token

        plain, quick = start(schema=PERSON, compact_json=True), start(schema=PERSON, compact_json=True)
        tokens, same = list[int](), list[int]()
        while not tokens or tokens[-1] not in tokenizer.end_tokens:
            tokens.append(chosen(plain, len(tokens)))
        while not same or same[-1] not in tokenizer.end_tokens:
            for token in quick.forced():
                assert mask(quick, tokenizer) == [token]
                quick.accept(token)
                same.append(token)
            same.append(chosen(quick, len(same)))
            n_steps += 1
        assert same == tokens
        assert mask(quick, tokenizer) == mask(plain, tokenizer)
        n_tokens += len(tokens)
    assert n_steps < 0.8 * n_tokens


def test_forced_is_a_look_and_no_step(tokenizer: Tokenizer, start: Started) -> None:
    state = start(regex="lighthouse keeper[s!]")
    first = list(state.forced())
    assert first
    assert list(state.forced()) == first
    state.accept(first[0])
    assert list(state.forced()) == first[1:]


def test_copies_go_their_own_ways(tokenizer: Tokenizer, start: Started, follow: Follow) -> None:
    state = start(schema=PERSON)
    chance = np.random.default_rng(1)
    for _ in range(25):
        alone, spoilt = state.copy(), state.copy()
        before = mask(state, tokenizer)
        spoilt.accept(int(chance.choice(before)))
        mask(spoilt, tokenizer)
        assert mask(state, tokenizer) == before
        token = int(chance.choice(before))
        state.accept(token)
        alone.accept(token)
        assert mask(alone, tokenizer) == mask(state, tokenizer)
    assert follow(state, 5) == follow(alone, 5)


def test_a_copy_may_be_taken_while_the_mask_is_on_its_way(tokenizer: Tokenizer, start: Started, follow: Follow) -> None:
    texts = []
    for n_copies in (0, 1, 2):
        state = start(schema=PERSON)
        for _ in range(30):
            token = mask(state, tokenizer)[-1]
            state.accept(token)
            for _ in range(n_copies):
                state = state.copy()
            if token in tokenizer.end_tokens:
                break
        texts.append(follow(state, 9))
    assert texts[0] == texts[1] == texts[2]


def test_after_the_end_there_is_only_the_end(tokenizer: Tokenizer, start: Started) -> None:
    state = start(regex="a?")
    for _ in range(3):
        (end,) = tokenizer.end_tokens & set(mask(state, tokenizer))
        state.accept(end)
        assert mask(state, tokenizer) == sorted(tokenizer.end_tokens)


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_token_from_outside_is_an_error_and_not_the_end(n_before: int, tokenizer: Tokenizer, start: Started) -> None:
    state = start(regex="[0-9]{2}")
    for _ in range(n_before):
        state.accept(mask(state, tokenizer)[0])
    wrong = tokenizer.encode("x", add_special=False)[-1]
    for token in (wrong, -1, tokenizer.n_vocab, *tokenizer.end_tokens):
        with pytest.raises(SamplerError, match=f"sampler grammar: token {token}, .*does not go on"):
            state.accept(token)
    state.accept(mask(state, tokenizer)[0])  # what was refused changed nothing


def test_a_wrong_token_in_the_place_of_a_forced_one(tokenizer: Tokenizer, start: Started) -> None:
    state = start(regex="lighthouse")
    with pytest.raises(SamplerError, match="does not go on"):
        state.accept(state.forced()[-1] + 1)


class Failing:
    """A matcher that met an error: it then allows the end alone, which would look like a whole text."""

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self.matcher, name)

    def deep_copy(self) -> Failing:
        return self

    def is_error(self) -> bool:
        return True

    def get_error(self) -> str:
        return "Parser Error: too many items\n<state>\nsecrets"


def test_a_grammar_that_becomes_too_complex_is_an_error(
    sampler: type[Grammar], tokenizer: Tokenizer, start: Started
) -> None:
    allowed = mask(start(regex="[a-z]{3}"), tokenizer)
    vocabulary, definition = sampler.vocabularies.of(tokenizer), sampler(regex="[a-z]{3}").definition
    known = vocabulary.start_of(definition)
    vocabulary._starts[definition] = evolve(known, matcher=cast(LLMatcher, Failing(known.matcher)))
    state = start(regex="[a-z]{3}")
    state.accept(allowed[0])
    with pytest.raises(SamplerError, match="cannot go on: Parser Error: too many items") as caught:
        mask(state, tokenizer)
    assert "secrets" not in str(caught.value)
    fresh = start(regex="[a-z]{3}")  # what failed is not kept
    fresh.accept(allowed[0])
    assert mask(fresh, tokenizer)


def test_a_mask_that_takes_too_long_is_an_error(
    tokenizer: Tokenizer, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, real = Event(), state_module.after

    def slow(*given: Any, **named: Any) -> Any:
        may_end.wait(60)
        return real(*given, **named)

    state = start(regex="[a-z]{3}")
    token = mask(state, tokenizer)[0]
    monkeypatch.setattr(state_module, "after", slow)
    state.accept(token)
    monkeypatch.setattr(state_module, "SECONDS", 0.05)
    with pytest.raises(SamplerError, match=r"what comes next is not known after 0\.05 s"):
        mask(state, tokenizer)
    may_end.set()
    monkeypatch.setattr(state_module, "SECONDS", 60)
    assert mask(state, tokenizer)


def test_texts_on_several_threads(sampler: type[Grammar], tokenizer: Tokenizer, follow: Follow, start: Started) -> None:
    def text(seed: int) -> tuple[list[int], bytes]:
        return follow(start(schema=PERSON), seed % 4)

    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(text, range(16)))
    assert texts == [text(seed) for seed in range(16)]


def test_a_tokenizer_is_read_once_and_dies_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tokenizer] = []

    class Counted(vocabulary_module.Vocabulary):
        def __init__(self, tokenizer: Tokenizer) -> None:
            made.append(weakref.proxy(tokenizer))
            super().__init__(tokenizer)

    monkeypatch.setattr(vocabulary_module, "Vocabulary", Counted)
    cls = Registry.of(sis_grammar).get("samplers", "grammar")
    tokenizer = build_bpe(small_vocabularies.byte_level())
    context = SamplerContext(9999, (), tokenizer)
    assert not made  # lazily
    starts = [Thread(target=cls(regex="a+").start, args=(context,)) for _ in range(4)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    state = cls(schema=PERSON).start(context)
    state.accept(mask(state, tokenizer)[0])
    mask(state, tokenizer)
    assert len(made) == 1
    alive = weakref.ref(tokenizer)
    del tokenizer, context, state, starts, thread
    gc.collect()
    assert alive() is None
    assert not cls.vocabularies._made
