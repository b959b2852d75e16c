"""Masks against brute force: every token of the vocabulary, tried on languages that are written out."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from attrs import frozen

from sis_core.sampler import SamplerState
from sis_core.tokenizer import Tokenizer

Started = Callable[..., SamplerState]
WALKS = 12


@frozen
class Language:
    """Options for the sampler, and the same language by hand."""

    options: dict[str, Any]
    is_prefix: Callable[[bytes], bool]
    is_text: Callable[[bytes], bool]


def finite(texts: Iterable[str], **options: Any) -> Language:
    whole = {text.encode() for text in texts}
    prefixes = {text[:n] for text in whole for n in range(len(text) + 1)}
    return Language(options, prefixes.__contains__, whole.__contains__)


def _arrays() -> Iterable[str]:
    for n in range(4):
        for items in itertools.product(["1", "12", "123", "true", '"hens"'], repeat=n):
            yield f"[{','.join(items)}]"


def _objects() -> Iterable[str]:
    for steps, keeper, hens in itertools.product(
        ["", '"steps":12', '"steps":345'], ['"the keeper":null'], ["", "1", "12"]
    ):
        yield "{" + ",".join(filter(None, [steps, keeper, hens and f'"hens":{hens}'])) + "}"


def _nested(text: bytes) -> int:
    """How many brackets are open, or -1 when one is closed too often or something else stands there."""
    depth = 0
    for byte in text:
        depth += {ord("("): 1, ord(")"): -1}.get(byte, -1000)
        if depth < 0:
            return -1
    return depth


WORDS = ["keeper", "keep", "Größe", "漢字かな", "😀", "e\u0301", "", "they've", "1234567", " lighthouse", "\n\n"]
LANGUAGES = {
    "an enum of any script": finite(
        [json.dumps(word, ensure_ascii=False) for word in WORDS], schema={"enum": WORDS}, compact_json=True
    ),
    "arrays": finite(
        _arrays(),
        schema={"type": "array", "maxItems": 3, "items": {"enum": [1, 12, 123, True, "hens"]}},
        compact_json=True,
    ),
    "optional properties": finite(
        _objects(),
        schema={
            "type": "object",
            "properties": {"steps": {"enum": [12, 345]}, "the keeper": {"type": "null"}, "hens": {"enum": [1, 12]}},
            "required": ["the keeper"],
            "additionalProperties": False,
        },
        compact_json=True,
    ),
    "a space first": finite(
        [f" {a} {b}." for a in ("the", "they", "keeper") for b in ("isn't", "wrote", "12")],
        regex=r" (the|they|keeper) (isn't|wrote|12)\.",
    ),
    "letters": finite(
        ["".join(x) + accent for n in (1, 2, 3) for x in itertools.product("aeth", repeat=n) for accent in ("", "é")],
        regex="[aeth]{1,3}é?",
    ),
    "one text": finite(["def f(x):\n    return x+1"], grammar='root ::= "def f(x):\\n    " "return x+1"\n'),
    "brackets": Language(
        {"grammar": 'root ::= group+\ngroup ::= "(" group* ")"\n'},
        lambda text: _nested(text) >= 0,
        lambda text: _nested(text) == 0 and text != b"",
    ),
    "brackets in Lark": Language(
        {"grammar": 'start: group+\ngroup: "(" group* ")"\n'},
        lambda text: _nested(text) >= 0,
        lambda text: _nested(text) == 0 and text != b"",
    ),
}


def allowed_by_hand(language: Language, tokenizer: Tokenizer, before: bytes) -> set[int]:
    """Every token with which the text could still become one of the language."""
    found = set(tokenizer.end_tokens) if language.is_text(before) else set()
    for token in range(tokenizer.n_vocab):
        raw = tokenizer.token_bytes(token)
        if raw and token not in tokenizer.end_tokens and language.is_prefix(before + raw):
            found.add(token)
    return found


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_token(name: str, tokenizer: Tokenizer, start: Started) -> None:
    language = LANGUAGES[name]
    n_masks = 0
    for walk in range(WALKS):
        state, before, chance = start(**language.options), b"", random.Random(walk)
        for _ in range(40):
            logits = np.zeros(tokenizer.n_vocab, np.float32)
            state.apply(logits)
            allowed, by_hand = set(np.flatnonzero(logits == 0).tolist()), allowed_by_hand(language, tokenizer, before)
            if forced := state.forced():
                # All that brute force allows begins one and the same text; of its tokens the canonical one is left.
                assert allowed == {forced[0]} <= by_hand
                rest = b"".join(map(tokenizer.token_bytes, forced))
                assert not language.is_text(before)
                assert all(rest.startswith(raw) or raw.startswith(rest) for raw in map(tokenizer.token_bytes, by_hand))
            else:
                assert allowed == by_hand
                n_masks += 1
            token = chance.choice(sorted(allowed))
            state.accept(token)
            if token in tokenizer.end_tokens:
                assert language.is_text(before)
                break
            before += tokenizer.token_bytes(token)
    assert n_masks >= WALKS  # at least the end of each text was no forced token


def test_a_forced_text_is_cut_as_the_tokenizer_cuts_it(tokenizer: Tokenizer, start: Started) -> None:
    text = " keeper of the lighthouse wrote: \"It's 1234567 steps, isn't it?\""
    state = start(regex=r" keeper of the lighthouse wrote: \"It's 1234567 steps, isn't it\?\"")
    before, both = (tokenizer.encode(part, add_special=False) for part in ("\n", "\n" + text))
    assert both[: len(before)] == before
    assert list(state.forced()) == both[len(before) :]
    assert b"".join(map(tokenizer.token_bytes, state.forced())) == text.encode()


def test_logits_without_a_token_are_forbidden(tokenizer: Tokenizer, start: Started) -> None:
    state = start(regex="[a-z]+")
    logits = np.zeros(tokenizer.n_vocab + 7, np.float32)
    state.apply(logits)
    assert (logits[tokenizer.n_vocab :] == -np.inf).all()
    assert (logits == 0).any()
