"""What native arithmetic costs in accuracy, beside llama.cpp: KL divergence from the float reference.

    python benchmarks/accuracy.py --models FOLDER --peer /path/to/other/python --text FOLDER_OF_STORIES

Every figure compares next-token distributions on the same quantised file and tokens, so that only arithmetic differs:
KL(reference ‖ side) in nats, the reference being the numpy backend with a float32 cache. Both sides keep float16
caches, as they do by default. Files: the built-in model on stories that it was not trained on, and random weights in
real shapes on random tokens; Q4_0, Q8_0 and Q4_K weights. Tokens are fed as one prompt and one at a time, which may be
different kernels. `sis eval --against` says what a format itself costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from random_model import write_model
from shapes import SHAPES
from speed.theirs import FLAGS

from sis_core.sampler import log_softmax
from sis_core.workbench.evaluate import kl_divergence

ROOT = Path(__file__).parents[1]
ISAS = (
    "portable", "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx",
    "neon", "neon_dotprod", "neon_fhm", "neon_i8mm",
)  # fmt: skip
SHAPES_AND_LAYERS = {"tinyllama-1.1b": 4, "gpt2": 12}
KINDS = ("Q4_0", "Q8_0", "Q4_K_M")
TINY = ("Q4_0", "Q8_0", "Q4_K")
RANDOM_TOKENS = 256
CONTEXT = 512  # of the built-in model


@dataclass(frozen=True)
class Case:
    """A file and the texts, as ids, that it reads."""

    name: str
    path: Path
    texts: list[list[int]]


@dataclass(frozen=True)
class Row:
    """One line of the table; ``ratio`` is the mean over that of the peer's closer way to run."""

    name: str
    steps: str
    side: str
    mean: float
    error: float
    largest: float
    ratio: float | None = None


def held_out(folder: Path, n_tokens: int) -> list[list[int]]:
    """Stories that the built-in model was not trained on, as its tokens, until there are enough."""
    from sis_core.texts.language_model import load

    sys.path.append(str(ROOT / "examples" / "train_tiny"))
    from train_tiny.text import read_stories  # which stories these are is the trainer's to say

    texts: list[list[int]] = []
    with load() as model:
        for story in read_stories(folder).held_out:
            if sum(map(len, texts)) >= n_tokens:
                break
            texts.append(model.tokenize(story)[:CONTEXT])
    return texts


def tiny_cases(models: Path, stories: Path, n_tokens: int) -> Iterator[Case]:
    """The built-in model in each format."""
    texts = held_out(stories, n_tokens)
    with as_file(files("sis_tiny") / "tiny.gguf") as built_in:
        for kind in TINY:
            path = models / f"tiny-{kind.lower()}.gguf"
            if not path.exists():
                command = [sys.executable, "-m", "sis_core", "quantize", str(built_in), str(path), "--to", kind]
                subprocess.run([*command, "--pure", "--requantize"], check=True, stdout=subprocess.DEVNULL)
            yield Case(f"built-in, {kind}", path, texts)


def random_cases(models: Path, shapes: Sequence[str]) -> Iterator[Case]:
    """Random weights in real shapes, and random tokens."""
    for (shape, layers), kind in product(SHAPES_AND_LAYERS.items(), KINDS):
        if shape not in shapes:
            continue
        path = models / f"{shape}-{layers}-{kind.lower()}.gguf"
        if not path.exists():
            part = path.with_suffix(".part")
            write_model(SHAPES[shape].with_layers(layers), part, file_type=kind)
            os.replace(part, path)
        tokens = np.random.default_rng(0).integers(0, SHAPES[shape].n_vocab, RANDOM_TOKENS).tolist()
        yield Case(f"{shape}, {layers} layers, {kind}", path, [tokens])


def logits(case: Case, side: str, python: str, decode: bool, n_threads: int, isa: str = "") -> tuple[str, list[Any]]:
    """What a side says of itself, and its logits (n, n_vocab) for each text."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "benchmarks")) | ({"SIS_ISA": isa} if isa else {})
    with tempfile.TemporaryDirectory() as scratch:
        tokens, out = Path(scratch) / "tokens.npz", Path(scratch) / "logits.npz"
        np.savez(tokens, *(np.array(text, np.int32) for text in case.texts))
        asked = {"side": side, "path": str(case.path), "n_threads": n_threads, "decode": decode}
        asked |= {"tokens": str(tokens), "out": str(out)}
        done = subprocess.run([python, "-m", "speed.logits", json.dumps(asked)], env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])
        with np.load(out) as found:
            return str(found["about"]), [found[f"text{i}"] for i in range(len(case.texts))]


def divergence(true: Sequence[Any], found: Sequence[Any]) -> tuple[float, float, float]:
    """KL divergence over all places of all texts, in nats: the mean, its standard error, and the largest."""
    pairs = zip(true, found, strict=True)
    values = np.concatenate([kl_divergence(log_softmax(t), log_softmax(f)) for t, f in pairs])
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(error), float(values.max())


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows of one file and way of feeding; those of sis get their ratio to the peer's best."""
    peers = [row.mean for row in rows if row.side.startswith("llama.cpp")]
    if not peers:
        return list(rows)
    best = min(peers)
    return [row if row.side.startswith("llama.cpp") else replace(row, ratio=row.mean / best) for row in rows]


def measure(case: Case, peer: str | None, isas: Sequence[str], n_threads: int) -> Iterator[Row]:
    """Every side on one file."""
    _, true = logits(case, "numpy", sys.executable, False, n_threads)
    for decode in (False, True):
        rows = []
        sides = [("sis", sys.executable, isa) for isa in isas]
        sides += [(flag, peer, "") for flag in FLAGS if peer]
        for side, python, isa in sides:
            try:
                about, found = logits(case, side, python, decode, n_threads, isa)
            except RuntimeError as error:
                print(f"{case.name}, {side} {isa}: {error}", file=sys.stderr, flush=True)
                continue
            if isa and isa not in about.replace(",", " ").split():
                continue  # this machine does not have it
            name = f"sis, {isa}" if isa else f"llama.cpp, {side}"
            rows.append(Row(case.name, "one by one" if decode else "prompt", name, *divergence(true, found)))
        yield from with_ratios(rows)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    text = [
        "| file | tokens | side | mean KL (its standard error) | largest KL | mean to llama.cpp's |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        figures = f"{row.mean:.2e} ({row.error:.0e}) | {row.largest:.2e}"
        text.append(f"| {row.name} | {row.steps} | {row.side} | {figures} | {ratio} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("SIS_TEST_DATA")
    parser.add_argument("--models", type=Path, required=True, help="the folder of the files; they are made there once")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--text", type=Path, default=Path(data) / "corpus" if data else None,
                        help="the stories of the built-in model (default: corpus in SIS_TEST_DATA)")  # fmt: skip
    parser.add_argument("--isa", type=lambda text: text.split(","), default=ISAS, help="instruction sets to force")
    parser.add_argument("--shapes", type=lambda text: text.split(",") if text else [], default=[*SHAPES_AND_LAYERS],
                        help="of files with random weights; empty: the built-in model alone")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=2048, help="of held-out stories")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    if options.text is None:
        print("no held-out stories: the built-in model is left out (--text, SIS_TEST_DATA)", file=sys.stderr)
    rows: list[Row] = []
    built_in = tiny_cases(options.models, options.text, options.tokens) if options.text else ()
    for case in chain(built_in, random_cases(options.models, options.shapes)):
        print(case.name, file=sys.stderr, flush=True)
        rows += measure(case, options.peer, options.isa, options.threads)
        if options.json:
            options.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n", "utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
