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
            for i in range(len(part)):
                row = llama_cpp.llama_get_logits_ith(context, i)
                found.append(np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (n_vocab,)).copy())
        llama_cpp.llama_batch_free(batch)
    return np.stack(found)
