"""`write_model`: a small model file with random weights, for trying a plugin on everything around the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sis_core.arrays import F32
from sis_core.gguf_file.writer import GGUFWriter

N_VOCAB, N_EMBD, N_FF, N_HEAD, N_HEAD_KV, N_LAYER = 260, 256, 512, 4, 2, 1
METADATA: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.name": "random",
    "llama.block_count": N_LAYER,
    "llama.context_length": 128,
    "llama.embedding_length": N_EMBD,
    "llama.feed_forward_length": N_FF,
    "llama.attention.head_count": N_HEAD,
    "llama.attention.head_count_kv": N_HEAD_KV,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
}


def write_model(path: Path, values: Mapping[str, Any] | None = None, weights: Mapping[str, F32] | None = None) -> Path:
    """Write a GGUF file in F32 and return its path.

    Args:
        values: metadata; where they have no ``general.architecture`` those of a LLaMA of one layer are added, and
            where they have no ``tokenizer.ggml.model`` a vocabulary of the 256 bytes and 4 more tokens.
        weights: tensors; by default those of that LLaMA. It is 256 values wide, so that blocks of any usual size divide
            its rows, and has 260 tokens.
    """
    values = values or {}
    architecture = {} if "general.architecture" in values else METADATA
    vocabulary = {} if "tokenizer.ggml.model" in values else _vocabulary()
    writer = GGUFWriter(path, {**architecture, **vocabulary, **values})
    for name, array in (_tensors() if weights is None else weights).items():
        writer.add_tensor(name, array.shape, "F32", [np.ascontiguousarray(array, np.float32)])
    writer.write()
    return path


def _vocabulary() -> dict[str, Any]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2 spells the others from 256 on
    others = iter(range(256, 512))
    spelt = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*spelt, "<s>", "</s>", "he", "Ġt"],
        "tokenizer.ggml.token_type": [1] * 256 + [3, 3, 1, 1],
        "tokenizer.ggml.merges": ["h e", "Ġ t"],
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.add_bos_token": True,
    }


def _tensors() -> dict[str, F32]:
    random = np.random.default_rng(0)
    n_kv = N_EMBD * N_HEAD_KV // N_HEAD
    shapes = {"attn_q": (N_EMBD, N_EMBD), "attn_k": (n_kv, N_EMBD), "attn_v": (n_kv, N_EMBD)}
    shapes |= {"attn_output": (N_EMBD, N_EMBD)}
    shapes |= {"ffn_gate": (N_FF, N_EMBD), "ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF)}
    named = {f"blk.{i}.{name}.weight": shape for i in range(N_LAYER) for name, shape in shapes.items()}
    named |= {"token_embd.weight": (N_VOCAB, N_EMBD), "output.weight": (N_VOCAB, N_EMBD)}
    norms = ["output_norm", *(f"blk.{i}.{name}" for i in range(N_LAYER) for name in ("attn_norm", "ffn_norm"))]
    matrices = {name: (random.standard_normal(shape) / 16).astype(np.float32) for name, shape in named.items()}
    return matrices | {f"{name}.weight": np.ones(N_EMBD, np.float32) for name in norms}
