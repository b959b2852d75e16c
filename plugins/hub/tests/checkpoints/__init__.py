"""Tiny checkpoints as Hugging Face keeps them: every family that can be converted."""

from collections.abc import Callable, Mapping
from pathlib import Path

from checkpoints.by_hand import BY_HAND
from checkpoints.described import DESCRIBED

CHECKPOINTS: Mapping[str, Callable[[Path], None]] = BY_HAND | DESCRIBED
#: `tokenizer.ggml.pre` of those with a byte-level vocabulary; llama.cpp's converter finds it by a real one's hash.
PRE = {
    **dict.fromkeys(DESCRIBED, "gpt-2"),
    "smollm3": "dbrx", "olmo2": "dbrx",
    **dict.fromkeys(("llama3", "arcee", "mistral3"), "llama-bpe"),
    **dict.fromkeys(("gpt2", "gptneox", "granite", "phi2"), "gpt-2"),
    **dict.fromkeys(("qwen2", "qwen3", "qwen2moe", "qwen3moe", "seed_oss"), "qwen2"),
}  # fmt: skip
