"""Logits of a GGUF file by llama.cpp, through the bindings of llama-cpp-python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt


@contextmanager
def _context(path: Path, n_ctx: int) -> Iterator[tuple[Any, int]]:
    """A context with a float32 cache and without flash attention, and the number of tokens in the vocabulary."""
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    how = llama_cpp.llama_context_default_params()
    how.n_ctx = how.n_batch = how.n_ubatch = n_ctx
    how.n_threads = how.n_threads_batch = 1
    how.type_k = how.type_v = llama_cpp.GGML_TYPE_F32
    how.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, how)
    if not context:
        llama_cpp.llama_model_free(model)
        raise RuntimeError(f"llama.cpp makes no context for {path}")
    try:
        yield context, llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def tokenize(path: Path, text: str) -> list[int]:
    """The ids of a text, with what the vocabulary puts before it, and with control tokens where it spells them."""
    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    vocab, raw = llama_cpp.llama_model_get_vocab(model), text.encode()
    ids = (llama_cpp.llama_token * (len(raw) + 8))()
    n = llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, len(ids), True, True)
    llama_cpp.llama_model_free(model)
    return ids[:n]


def greedy(path: Path, tokens: Sequence[int], n: int) -> tuple[list[int], npt.NDArray[np.float32]]:
    """``n`` tokens more, each the best, and the logits ``(n, n_vocab)`` that they were chosen by."""
    ids, rows = list(tokens), []
    with _context(path, len(tokens) + n) as (context, n_vocab):
        part = ids
        for _ in range(n):
            array = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(part))):
                raise RuntimeError(f"llama.cpp fails after {len(ids)} tokens of {path}")
            rows.append(_row(context, -1, n_vocab))
            part = [int(rows[-1].argmax())]
            ids += part
    return ids[len(tokens) :], np.stack(rows)


def _row(context: Any, row: int, n_vocab: int) -> npt.NDArray[np.float32]:
    pointer = ctypes.cast(llama_cpp.llama_get_logits_ith(context, row), ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, (n_vocab,)).copy()


def logits(path: Path, tokens: Sequence[int], step: int | None = None) -> npt.NDArray[np.float32]:
    """The logits ``(n, n_vocab)`` at every position, ``step`` tokens at a time (all at once unless told)."""
    n = len(tokens)
    step = step or n
    found = []
    with _context(path, max(64, n)) as (context, n_vocab):
        batch = llama_cpp.llama_batch_init(step, 0, 1)
        for start in range(0, n, step):
            part = tokens[start : start + step]
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), start + i, 1, True
                batch.seq_id[i][0] = 0
            if llama_cpp.llama_decode(context, batch):
                raise RuntimeError(f"llama.cpp fails on tokens {start} to {start + len(part) - 1} of {path}")
            found += [_row(context, i, n_vocab) for i in range(len(part))]
        llama_cpp.llama_batch_free(batch)
    return np.stack(found)
