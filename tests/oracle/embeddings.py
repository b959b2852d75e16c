"""What transformers makes of a text's hidden states: the goldens of `tests/test_embedding.py`.

    python tests/oracle/embeddings.py oracle/qwen3/checkpoint tests/goldens/embeddings/qwen3.npz

In float64, with `make.py`'s tiny checkpoint: the states after the output norm, pooled and made one long, as
sentence-transformers' ``Pooling`` and ``Normalize`` do it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

LENGTHS = (1, 9, 70)  # tokens: one, some, and more than two pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("golden", type=Path)
    options = parser.parse_args()
    model = AutoModel.from_pretrained(options.checkpoint, dtype=torch.float64).eval()
    found = {}
    for length in LENGTHS:
        ids = [(37 * i * i + 11 * length) % 256 for i in range(length)]
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        for pooling, vector in (("mean", states.mean(0)), ("first", states[0]), ("last", states[-1])):
            found[f"{pooling}_{length}"] = (vector / np.linalg.norm(vector)).astype(np.float32)
        found[f"ids_{length}"] = np.array(ids, np.int32)
    options.golden.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.golden, **found)


if __name__ == "__main__":
    main()
