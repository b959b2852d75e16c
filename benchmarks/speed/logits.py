"""Logits after every token of some texts, from one side; what `accuracy.py` starts as a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speed import course


def ours(path: str, n_threads: int, texts: Sequence[Sequence[int]], decode: bool, numpy: bool) -> tuple[str, list[Any]]:
    """From sis: with its best backend and a cache of float16, or from the reference with one of float32."""
    from sis_core.texts.language_model import load

    options = {"backend": "numpy", "kv_type": "f32"} if numpy else {}
    found = []
    with load(path, n_threads=n_threads, n_ctx=max(map(len, texts)), **options) as model, model.session() as session:
        backend = model.registry.get("backends", model.backend)
        for tokens in texts:
            steps = [[token] for token in tokens] if decode else [tokens]
            found.append(np.concatenate([session.feed(step, every=True) for step in steps]))
            session.drop(0)
        return str(backend.describe()), found


def theirs(path: str, n_threads: int, texts: Sequence[Sequence[int]], decode: bool, flag: str) -> tuple[str, list[Any]]:
    """From llama.cpp, with its cache of float16."""
    from speed.theirs import LlamaCpp

    engine = LlamaCpp(path, n_threads, flag == "flash")
    found = []
    for tokens in texts:
        engine.begin(1, max(course.CHUNK, *map(len, texts)))
        size = 1 if decode else course.CHUNK
        rows = []
        for at in range(0, len(tokens), size):
            part = tokens[at : at + size]
            engine.step(part, last=True, every=True)
            rows.append(engine.logits(len(part)))
        found.append(np.concatenate(rows))
    return engine.about(), found


def main() -> None:
    asked = course.request()
    texts = [text.tolist() for text in np.load(asked["tokens"]).values()]
    side, common = asked["side"], (asked["path"], asked["n_threads"], texts, asked["decode"])
    about, found = ours(*common, side == "numpy") if side in ("sis", "numpy") else theirs(*common, side)
    np.savez(Path(asked["out"]), about=about, **{f"text{i}": logits for i, logits in enumerate(found)})


if __name__ == "__main__":
    main()
