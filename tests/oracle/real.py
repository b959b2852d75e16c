"""What llama.cpp and transformers compute with real models: the goldens of `tests/test_real_models.py`.

    python tests/real_models.py
    PYTHONPATH=tests:benchmarks python tests/oracle/real.py --goldens tests/goldens/real

Texts are continued by llama.cpp's best tokens. transformers computes in float64 over the same file's tensors as they
dequantize; llama.cpp multiplies by activations rounded to eight bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import peer
import torch
from real_models import GEMMA3, SMOLLM2, RealFile, real

N_GREEDY = 32
BEST, SPREAD = 16, 48

CAPITAL = "The capital of France is"
QUESTION = "<|im_start|>user\nName three colours of the rainbow.<|im_end|>\n<|im_start|>assistant\n"
PAST_THE_WINDOW = ", ".join(str(i) for i in range(1, 171))  # Gemma's windowed layers see 512 tokens

CASES: dict[str, tuple[RealFile, str]] = {
    "smollm2-capital": (SMOLLM2, CAPITAL),
    "smollm2-chat": (SMOLLM2, QUESTION),
    "gemma3-capital": (GEMMA3, CAPITAL),
    "gemma3-long": (GEMMA3, PAST_THE_WINDOW),
}


def columns(logits: Any) -> Any:
    """``(n, BEST + SPREAD)`` ids of each row whose logits are kept: the best ones, and some across the vocabulary."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :BEST]
    spread = np.linspace(0, logits.shape[1] - 1, SPREAD).astype(np.int32)
    return np.concatenate([best, np.broadcast_to(spread, (len(logits), SPREAD))], axis=1).astype(np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, required=True)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    options.goldens.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.cases or CASES:
        file, text = CASES[name]
        path = real(file)
        prompt = peer.tokenize(path, text)
        continued, theirs = peer.greedy(path, prompt, N_GREEDY)
        exact = oracle.hf_logits(path, prompt + continued[:-1], "float64")[len(prompt) - 1 :]
        kept = columns(exact)
        np.savez_compressed(
            options.goldens / f"{name}.npz",
            model=file.name,
            text=text,
            prompt=np.array(prompt, np.int32),
            continued=np.array(continued, np.int32),
            columns=kept,
            llama_cpp=np.take_along_axis(theirs, kept, axis=1),
            transformers=np.take_along_axis(exact, kept, axis=1),
            scale=np.abs(exact).max(),
        )
        same = int((exact.argmax(axis=1) == continued).sum())
        differs = oracle.difference(theirs, exact)
        print(
            f"{name}: {len(prompt)} tokens; llama.cpp differs by {differs:.1e}; {same} of {N_GREEDY} best", flush=True
        )


if __name__ == "__main__":
    main()
