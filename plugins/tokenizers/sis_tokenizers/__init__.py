"""Tokenizers from GGUF metadata: SentencePiece's BPE (``llama``) and byte-level BPE (``gpt2``)."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.tokenizer import TokenizerFactory
from sis_tokenizers.bpe import build_bpe
from sis_tokenizers.pre_tokenizers import PRE_TOKENIZERS
from sis_tokenizers.spm import build_spm


@hookimpl
def sis_register_tokenizers() -> list[TokenizerFactory]:
    return [TokenizerFactory("llama", build_spm), TokenizerFactory("gpt2", build_bpe, tuple(sorted(PRE_TOKENIZERS)))]
