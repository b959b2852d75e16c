"""What the types of a cache lose, beside llama.cpp on the same files: KL divergence from the float32 cache.

    python benchmarks/cache_types.py MODEL.gguf … --text FILE --peer /path/to/other/python

Every side is compared with itself, so that only the cache differs: KL(with a float32 cache ‖ with the type) in nats a
token, over the second half of chunks of ``--ctx`` tokens, of which each ``--every``-th place is looked at.
``--backend numpy`` computes in float32; without it the best backend does, which may round
activations, as the peer does: what is rounded moves by whole steps where a key differs in its last bit. The peer uses
flash attention throughout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
TYPES = ("f16", "bf16", "q8_0", "q4_0")


def chunks_of(path: str, text: str, n_ctx: int, n: int) -> list[Any]:
    """The first ``n`` chunks of ``n_ctx`` tokens, each with the begin token in front where the model wants one."""
    from sis_core.texts.language_model import load
    from sis_core.workbench.chunks import chunks_of as whole_chunks

    with load(path, n_ctx=n_ctx) as model:
        tokens = model.tokenize(text[: 16 * n_ctx * n])
        return [np.array(chunk.fed, np.int32) for chunk in whole_chunks(tokens, n_ctx, model.tokenizer, "text")[:n]]


def measured(python: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one side."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "benchmarks"))
    command = [python, "-m", "speed.caches", json.dumps(asked)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="GGUF files")
    parser.add_argument("--text", type=Path, required=True, help="a file of text")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--backend", help="of sis (default: the best one)")
    parser.add_argument("--types", type=lambda text: text.split(","), default=TYPES)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    text = options.text.read_text("utf-8")
    print("| file | side | type | mean KL (its standard error) | median | places |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        with tempfile.TemporaryDirectory() as scratch:
            tokens = Path(scratch) / "tokens.npz"
            np.savez(tokens, *chunks_of(model, text, options.ctx, options.chunks))
            asked = {"path": str(model), "tokens": str(tokens), "n_threads": options.threads}
            asked |= {"types": options.types, "every": options.every, "backend": options.backend}
            for side, python in (("sis", sys.executable), ("llama.cpp", options.peer)):
                for row in measured(python, asked | {"side": side}) if python else ():
                    loss = f"{row['mean']:.6f} ({row['error']:.6f}) | {row['median']:.6f} | {row['n']}"
                    print(f"| {Path(model).name} | {side} | {row['type']} | {loss} |", flush=True)


if __name__ == "__main__":
    main()
