"""Next-token distributions of llama.cpp or ik_llama.cpp, as their llama-perplexity writes them.

A file of ``--kl-divergence-base`` has, little-endian: ``_logits_``, n_ctx, n_vocab and the number of chunks (int32),
the tokens of all chunks (int32), and for each place a scale and the lowest log-probability (float32), then a number of
16 bits for each token of the vocabulary, filled up to an even number of them. The lowest is at most 16 nats below the
likeliest. (llama.cpp, tools/perplexity/perplexity.cpp.)
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

STEPS = ("prompt", "one by one")
RANGE = 16.0  # nats below the likeliest that are kept
LEVELS = 65535


class PeersError(RuntimeError):
    """A side cannot measure this; the text says why."""


def places(n_ctx: int) -> int:
    """Of a chunk that are looked at: `n_ctx // 2` to the last but one."""
    return n_ctx - 1 - n_ctx // 2


def coded(logits: Any) -> Any:
    """What such a file keeps of rows of logits, so that all sides lose the same; float32, up to a constant."""
    best = logits.max(-1, keepdims=True).astype(np.float64)
    lowest = np.maximum(logits.min(-1, keepdims=True), best - RANGE)
    scale = (best - lowest) / LEVELS
    return (np.rint((np.maximum(logits, lowest) - lowest) / np.where(scale > 0, scale, 1)) * scale).astype(np.float32)


def read_base(path: Path) -> tuple[Any, Any]:
    """The tokens of such a file with one chunk, and the log-probabilities (places, n_vocab) in float32."""
    data = np.fromfile(path, np.uint8)
    if data[:8].tobytes() != b"_logits_":
        raise PeersError(f"{path.name} does not begin as it should")
    n_ctx, n_vocab, n_chunks = data[8:20].view(np.int32).tolist()
    tokens = data[20 : 20 + 4 * n_ctx * n_chunks].view(np.int32)
    rows = data[20 + tokens.nbytes :].view(np.uint16).reshape(n_chunks * places(n_ctx), -1)
    scale, lowest = rows[:, :4].copy().view(np.float32).T[:, :, None]
    return tokens, rows[:, 4 : 4 + n_vocab] * scale + lowest


def theirs(folder: Path, model: Path, text: Path, steps: str, tokens: Any, n_threads: int, scratch: Path) -> Any:
    """Log-probabilities after the second half of these tokens, with which the text must begin for the peer too."""
    base, n = scratch / "base", len(tokens)
    sizes = ("-c", n, "-b", n, "-ub", 1 if steps == "one by one" else n, "--chunks", 1)
    files = ("-m", model.resolve(), "-f", text.resolve(), "--kl-divergence-base", base)
    command = map(str, [folder.resolve() / "llama-perplexity", *files, *sizes, "-t", n_threads, "-ngl", 0])
    # Some write a log where they are.
    done = subprocess.run([*command], cwd=scratch, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not base.exists():
        raise PeersError((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])
    read, found = read_base(base)
    if read.tolist() != tokens.tolist():
        raise PeersError("the text is other tokens there")
    return found
