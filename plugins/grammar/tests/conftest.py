"""What the tests of the grammar share: the sampler of a registry, two small vocabularies, and a way to follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import sis_grammar
import small_vocabularies
from sis_grammar.sampler import Grammar
from sis_tokenizers.bpe import build_bpe
from sis_tokenizers.spm import build_spm

from sis_core.arrays import F32
from sis_core.registry import Registry
from sis_core.sampler import SamplerContext, SamplerState, draw
from sis_core.tokenizer import Tokenizer

MOST = 1500


@pytest.fixture(scope="session")
def sampler() -> type[Grammar]:
    """The class that a registry gives, which keeps vocabularies for all tests."""
    found: type[Grammar] = Registry.of(sis_grammar).get("samplers", "grammar")
    return found


@cache
def small(kind: str) -> Tokenizer:
    return (
        build_spm(small_vocabularies.sentencepiece()) if kind == "spm" else build_bpe(small_vocabularies.byte_level())
    )


@pytest.fixture(params=["spm", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Both kinds of vocabulary, one after the other."""
    return small(request.param)


Started = Callable[..., SamplerState]


@pytest.fixture
def start(sampler: type[Grammar], tokenizer: Tokenizer) -> Started:
    """Makes the state of a text from the sampler's options."""

    def made(**options: Any) -> SamplerState:
        return sampler(**options).start(SamplerContext(tokenizer.n_vocab, (), tokenizer))

    return made


@pytest.fixture
def follow(tokenizer: Tokenizer) -> Callable[..., tuple[list[int], bytes]]:
    """Draws a whole text of a state from random logits: its tokens and bytes. A text that does not end is a failure."""

    def followed(state: SamplerState, seed: int) -> tuple[list[int], bytes]:
        tokens: list[int] = []
        while len(tokens) < MOST:
            logits = logits_of(tokenizer, seed, len(tokens))
            state.apply(logits)
            token = draw(logits, seed, len(tokens))
            state.accept(token)
            if token in tokenizer.end_tokens:
                return tokens, spelt(tokenizer, tokens)
            tokens.append(token)
        raise AssertionError(f"no end after {MOST} tokens: {spelt(tokenizer, tokens)!r:.300}")

    return followed


def logits_of(tokenizer: Tokenizer, seed: int, step: int) -> F32:
    """What a model that knows nothing would say at a step."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=step))
    return (generator.standard_normal(tokenizer.n_vocab) * 3).astype(np.float32)


def spelt(tokenizer: Tokenizer, tokens: Sequence[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, tokens))
