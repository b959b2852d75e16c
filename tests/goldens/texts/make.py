"""Writes tiny.json: what the built-in model says in every format that can encode.

    uv run python tests/goldens/texts/make.py

The model's file is quantised again to each format; then it continues the prompt greedily on the numpy reference with a
float32 cache. A text stops before the first token whose lead over the next is small, so that another machine's rounding
cannot change it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from sis_core.gguf_file import GGUFFile
from sis_core.registry import Registry
from sis_core.source import resolve
from sis_core.texts.language_model import load
from sis_core.workbench.quantizer.plan import make_plan
from sis_core.workbench.quantizer.run import quantize_file

PROMPT, N_TOKENS, LEAD = "One day the wolf said to the", 40, 0.02
GOLDEN = Path(__file__).with_name("tiny.json")


def encodable(registry: Registry) -> list[str]:
    """The formats that this repository's parts can write, under GGUF's own ids."""
    return sorted(f.name for f in registry.records("quant_formats") if f.can_quantize and f.type_id is not None)


def tell(registry: Registry, format: str, path: Path, n_tokens: int, lead: float) -> list[int]:
    """Write the built-in model in ``format`` to ``path``, and continue the prompt."""
    with GGUFFile.open(resolve(None, registry.records("sources"))) as file:
        quantize_file(file, path, make_plan(file, registry, format, pure=True, requantize=True))
    with load(path, backend="numpy", kv_type="f32", registry=registry) as model, model.session() as session:
        logits = session.feed(model.tokenize(PROMPT))[0]
        found: list[int] = []
        while len(found) < n_tokens:
            second, first = sorted(logits.tolist())[-2:]
            if first - second < lead:
                break
            found.append(int(logits.argmax()))
            logits = session.feed(found[-1:])[0]
        return found


def main() -> None:
    """Write the golden file."""
    registry = Registry.load()
    goldens = {}
    with tempfile.TemporaryDirectory() as folder, load(registry=registry) as model:
        for format in encodable(registry):
            tokens = tell(registry, format, Path(folder) / f"{format}.gguf", N_TOKENS, LEAD)
            goldens[format] = {"tokens": tokens, "text": model.detokenize(tokens)}
    GOLDEN.write_text(json.dumps(goldens, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
