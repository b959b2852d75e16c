"""What sis computes with a model that `make.py` made, beside transformers and llama.cpp.

    uv run python tests/oracle/compare.py oracle/qwen3moe

Differences are max|a − b| / max|b| from transformers in float64, over every position.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sis_core.backend import BackendOptions
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch


def logits(file: Path, ids: Any, registry: Registry, backend: str | None, step: int) -> Any:
    """The logits ``(n, n_vocab)`` at every position, ``step`` tokens at a time."""
    options = BackendOptions(kv_type="f32", n_threads=1)
    with open_model(Model, file, registry, backend=backend, options=options) as model:
        cache, n = model.new_cache(len(ids)), len(ids)
        parts = [
            model.step(Batch.of(part := ids[i : i + step], position=i, outputs=range(len(part))), cache).values.copy()
            for i in range(0, n, step)
        ]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="a family's folder: model.gguf and logits.npz")
    options = parser.parse_args()
    registry = Registry.load()
    for folder in options.folder:
        with np.load(folder / "logits.npz") as made:
            found, ids = dict(made), made["ids"]
        wanted = found["logits"]
        runs = {"llama.cpp": found["llama_cpp"]} if "llama_cpp" in found else {}
        for backend in ("numpy", None):
            for step in (len(ids), 1):
                name = f"sis {backend or 'by itself'}, {'at once' if step > 1 else 'one by one'}"
                runs[name] = logits(folder / "model.gguf", ids, registry, backend, step)
        print(folder.name)
        for name, values in runs.items():
            by_row = np.abs(values.astype(np.float64) - wanted).max(axis=1) / np.abs(wanted).max()
            best = int((values.argmax(axis=1) == wanted.argmax(axis=1)).sum())
            wrong = np.flatnonzero(by_row > 1e-4)
            first = f", above 1e-4 from position {wrong[0]} on" if len(wrong) else ""
            print(f"  {name:26} {by_row.max():.1e}, {best} of {len(ids)} best{first}")


if __name__ == "__main__":
    main()
