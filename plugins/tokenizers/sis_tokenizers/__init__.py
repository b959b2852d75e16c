"""Tokenizers from GGUF metadata: SentencePiece's BPE (``llama``), BPE over bytes (``gpt2``) and over characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sis_core import hookimpl
from sis_core.tokenizer import Tokenizer, TokenizerFactory
from sis_tokenizers.bpe import build_bpe
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS
from sis_tokenizers.spm import build_spm
from sis_tokenizers.text_bpe import TEXT_PRES, build_text_bpe
from sis_tokenizers.vocabulary import PREFIX


def build_gpt2(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``gpt2``; TokenizerError if it contradicts itself."""
    over_characters = metadata.get(PREFIX + "pre") in TEXT_PRES
    return build_text_bpe(metadata) if over_characters else build_bpe(metadata)


@hookimpl
def sis_register_tokenizers() -> list[TokenizerFactory]:
    return [
        TokenizerFactory("llama", build_spm),
        TokenizerFactory("gpt2", build_gpt2, tuple(sorted([*PRE_TOKENIZERS, *TEXT_PRES]))),
        TokenizerFactory("gemma4", build_text_bpe),
    ]
