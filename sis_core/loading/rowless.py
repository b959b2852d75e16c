"""Tokens at the end of a file's vocabulary for which its embedding has no row.

Ollama's Gemma 3 from 4B on lists 262,145 tokens over 262,144 rows: the last, ``<image_soft_token>``, stands where a
picture goes. llama.cpp refuses such a file, and Ollama puts the picture there. Here a text goes without these tokens,
as if the file did not list them, where every one of them is of a type that no other token is made of or replaced by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from sis_core.gguf_file import TensorInfo

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
PER_TOKEN = (TOKENS, TYPES, "tokenizer.ggml.scores")
SPARED = (3, 4, 5)  # control, user-defined, unused: written whole or not at all
TABLE = "token_embd.weight"


def count_rowless(metadata: Mapping[str, Any], n_rows: int) -> int | None:
    """How many tokens have no row of the ``n_rows``; None for a file that cannot run.

    That is one whose texts need one of them, or with rows that have no token: these would have logits, and a sampler
    could choose an id without a text. Converters add tokens where an embedding is padded.
    """
    tokens, types = metadata.get(TOKENS), metadata.get(TYPES)
    if not _is_array(tokens):  # said elsewhere
        return 0
    extra = len(tokens) - n_rows
    if extra <= 0:
        return None if extra else 0
    if _is_array(types) and len(types) == len(tokens) and all(kind in SPARED for kind in types[n_rows:]):
        return extra
    return None


def count_rows(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Rows of a file's embedding, where it has one under GGUF's name."""
    table = tensors.get(TABLE)
    return table.shape[0] if table is not None and len(table.shape) == 2 else None


def without_rowless(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Mapping[str, Any]:
    """What a tokenizer is made from: the metadata, without tokens that have no row and that texts can spare."""
    n_rows = count_rows(tensors)
    if n_rows is None or not count_rowless(metadata, n_rows):
        return metadata
    return {**metadata, **{key: metadata[key][:n_rows] for key in PER_TOKEN if _is_array(metadata.get(key))}}


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
