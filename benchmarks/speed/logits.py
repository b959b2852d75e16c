"""Logits of sis over the beginning of a text, fed each way; what `accuracy.py` starts as a process of its own.

They are those that llama.cpp's perplexity tool looks at: of the second half of a chunk, but for the last token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speed import course
from speed.perplexity import STEPS, places


def ours(path: str, text: str, n_ctx: int, n_threads: int, side: str) -> dict[str, Any]:
    """With an instruction set and a cache of float16, or the reference (``numpy``) with one of float32, as a prompt.

    ``SIS_ISA`` names the set; there are no logits where the machine does not have it.
    """
    from sis_core.texts.language_model import load
    from sis_core.workbench.chunks import chunks_of

    is_reference = side == "numpy"
    options: dict[str, Any] = {"backend": "numpy", "kv_type": "f32"} if is_reference else {}
    with load(path, n_threads=n_threads, n_ctx=n_ctx, **options) as model, model.session() as session:
        words = Path(text).read_text("utf-8")[: 16 * n_ctx]
        chunk = chunks_of(model.tokenize(words), n_ctx, model.tokenizer, text)[0]
        half, end = n_ctx - 1 - places(n_ctx), n_ctx - 1
        found: dict[str, Any] = {"tokens": np.array(chunk.ids, np.int32)}
        about = model.registry.get("backends", model.backend).describe()
        if not is_reference and side not in about.replace(",", " ").split():
            return found
        for steps in STEPS[:1] if is_reference else STEPS:
            session.drop(0)
            if steps == "prompt":
                found[steps] = session.feed(chunk.fed, every=True)[half:end]
                continue
            for token in chunk.fed[:half]:
                session.feed([token])
            found[steps] = np.concatenate([session.feed([token], every=True) for token in chunk.fed[half:end]])
        return found


def main() -> None:
    asked = course.request()
    out = asked.pop("out")
    np.savez(out, **ours(**asked))


if __name__ == "__main__":
    main()
