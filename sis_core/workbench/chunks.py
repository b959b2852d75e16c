"""A text in chunks of one length, as `sis eval` and `sis imatrix` read it (and llama.cpp's perplexity before them)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from sis_core.errors import ContextError
from sis_core.tokenizer import Tokenizer


@frozen
class Chunk:
    """``ids`` of the text, and the same as a model is fed them: a BOS in place of the first, where it wants one."""

    ids: list[int]
    fed: list[int]


def chunks_of(tokens: Sequence[int], n_ctx: int, tokenizer: Tokenizer, where: str) -> list[Chunk]:
    """All whole chunks of ``n_ctx`` tokens; ContextError where there is none."""
    if len(tokens) < n_ctx:
        raise ContextError(
            f"the text has {len(tokens)} tokens, fewer than one chunk of {n_ctx}",
            where=where,
            fix="give a longer text, or smaller chunks with --ctx",
        )
    begin = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
    found = [list(tokens[at : at + n_ctx]) for at in range(0, len(tokens) - n_ctx + 1, n_ctx)]
    return [Chunk(ids, begin + ids[len(begin) :]) for ids in found]
