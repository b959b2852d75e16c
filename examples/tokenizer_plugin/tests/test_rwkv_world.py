"""All a tokenizer's author has to test: the contract, what the tokenizer is for, and a model that runs with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sis_rwkv_world

from sis_core.errors import TokenizerError
from sis_core.testing import check_tokenizer, write_model

(FACTORY,) = sis_rwkv_world.sis_register_tokenizers()
RAW = [*(bytes([byte]) for byte in range(256)), b"Once", " 漢字".encode(), b"Once upon"]
VOCABULARY: dict[str, Any] = {
    "tokenizer.ggml.model": "rwkv",
    "tokenizer.ggml.tokens": ["<s>", *(repr(raw)[2:-1] for raw in RAW)],  # as the converter spells them
    "tokenizer.ggml.token_type": [3] + [1] * len(RAW),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.eot_token_id": 11,
}


def test_contract() -> None:
    check_tokenizer(FACTORY, VOCABULARY)


def test_the_longest_token_wins() -> None:
    made = FACTORY.build(
        VOCABULARY | {"tokenizer.ggml.tokens": [t.encode() for t in VOCABULARY["tokenizer.ggml.tokens"]]}
    )
    assert made.encode("Once upon\n") == [259, 1 + ord("\n")]
    assert made.encode("Once up") == [257, *(1 + byte for byte in b" up")]
    assert made.encode("Once 漢字.") == [257, 258, 1 + ord(".")]
    assert made.encode("'\\") == [1 + ord("'"), 1 + ord("\\")]
    assert made.end_tokens == {0, 11}


def test_a_vocabulary_without_a_byte() -> None:
    made = FACTORY.build({"tokenizer.ggml.tokens": [b"a"], "tokenizer.ggml.token_type": [1]})
    assert made.encode("aaa") == [0, 0, 0]
    with pytest.raises(TokenizerError, match="no token begins with the byte 0x62"):
        made.encode("ab")


def test_a_model_runs_with_it(sis_run: Callable[..., str], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", VOCABULARY)
    assert sis_run("tokenize", "-m", model, "--ids", "Once upon").split() == ["259"]
    assert sis_run("generate", "-m", model, "-n", 8, "--ignore-end", "Once upon").startswith("Once upon")
