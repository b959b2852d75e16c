"""Tokenizers from GGUF metadata: SentencePiece's BPE (``llama``), BPE over bytes (``gpt2``) and over characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sis_core import hookimpl
from sis_core.tokenizer import Tokenizer, TokenizerFactory
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS, TEXT_PRES
from sis_tokenizers.spm import build_spm
from sis_tokenizers.vocabulary import PREFIX


def build_gpt2(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a file whose ``tokenizer.ggml.model`` is ``gpt2``; TokenizerError if it contradicts itself."""
    if metadata.get(PREFIX + "pre") in TEXT_PRES:
        return build_gemma4(metadata)
    from sis_tokenizers.bpe import build_bpe  # not before there is a text: what merges takes long to import

    return build_bpe(metadata)


def build_gemma4(metadata: Mapping[str, Any]) -> Tokenizer:
    """The same for BPE over characters."""
    from sis_tokenizers.text_bpe import build_text_bpe

    return build_text_bpe(metadata)


@hookimpl
def sis_register_tokenizers() -> list[TokenizerFactory]:
    return [
        TokenizerFactory("llama", build_spm),
        TokenizerFactory("gpt2", build_gpt2, tuple(sorted([*PRE_TOKENIZERS, *TEXT_PRES]))),
        TokenizerFactory("gemma4", build_gemma4),
    ]
