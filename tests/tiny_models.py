"""A small random LLaMA with a byte-level vocabulary, for tests of everything around the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sis_core.gguf_file.writer import GGUFWriter

N_VOCAB = 260
BOS, EOS = 256, 257


def byte_names() -> list[str]:
    """GPT-2's printable name for each of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    names = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [names[b] for b in range(256)]


def metadata(**changes: Any) -> dict[str, Any]:
    """Metadata of the model; ``changes`` replace keys (``None`` removes one), with ``__`` for dots."""
    tokens = [*byte_names(), "<s>", "</s>", "he", "Ġt"]
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "random llama",
        "llama.block_count": 2,
        "llama.context_length": 128,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3, 3, 1, 1],
        "tokenizer.ggml.merges": ["h e", "Ġ t"],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": True,
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in values.items() if value is not None}


def tensors(seed: int = 0, n_layer: int = 2) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Random float32 tensors that fit `metadata`."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    found = {
        "token_embd.weight": matrix(N_VOCAB, 32),
        "output_norm.weight": 1 + matrix(32),
        "output.weight": matrix(N_VOCAB, 32),
    }
    for i in range(n_layer):
        shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
        shapes |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
        found |= {f"blk.{i}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        found |= {f"blk.{i}.{name}.weight": 1 + matrix(32) for name in ("attn_norm", "ffn_norm")}
    return found


def write_model(path: Path, values: dict[str, Any] | None = None, weights: dict[str, Any] | None = None) -> Path:
    """Write the model (or one with other metadata or tensors) as F32."""
    writer = GGUFWriter(path, metadata() if values is None else values)
    for name, array in (tensors() if weights is None else weights).items():
        writer.add_tensor(name, array.shape, "F32", [np.ascontiguousarray(array)])
    writer.write()
    return path
