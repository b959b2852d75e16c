"""What native arithmetic costs in accuracy, beside llama.cpp and its fork: KL divergence from the float reference.

    python benchmarks/accuracy.py --models FOLDER --text FILE --peer llama.cpp=/path/to/bin --peer ik_llama.cpp=…
    python benchmarks/accuracy.py --models FOLDER --text FILE --shapes "" --real MODEL.gguf --requantize MODEL.gguf

Every figure compares next-token distributions on the same file and tokens, so that only arithmetic differs: the mean
of KL(reference ‖ side) in nats, the reference being the numpy backend with a float32 cache. All sides keep float16
caches, as they do by default. The peers write their distributions by ``llama-perplexity --kl-divergence-base``; what
that rounds away is rounded on all sides. Tokens are fed as one prompt and one at a time, which may be different
kernels. `sis eval --against` says what a format itself costs. See `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from formats import FIRST, MORE
from random_model import write_model
from shapes import SHAPES
from speed.perplexity import STEPS, PeersError, coded, places, theirs

from sis_core.sampler import log_softmax
from sis_core.workbench.evaluate import kl_divergence

ROOT = Path(__file__).parents[1]
ISAS = (
    "portable", "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx",
    "neon", "neon_dotprod", "neon_fhm", "neon_i8mm",
)  # fmt: skip
RANDOM = ("tinyllama-1.1b", "qwen3-0.6b")


@dataclass(frozen=True)
class Row:
    """One side on one file, fed one way: its divergence at each place, in nats."""

    name: str
    steps: str
    side: str
    values: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    def of(self, other: Row) -> tuple[float, float]:
        """How many times the other's mean this one is, and the standard error of that, place by place."""
        ratio = self.mean / other.mean
        left = np.array(self.values) - ratio * np.array(other.values)
        return ratio, float(left.std(ddof=1) / np.sqrt(len(left)) / other.mean)


@dataclass(frozen=True)
class Peer:
    """A folder with llama-perplexity."""

    name: str
    folder: Path


def random_files(
    models: Path, shapes: Sequence[str], layers: int, formats: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    """Random weights in real shapes, cut to a few layers; every matrix in one type."""
    for shape, kind in product(shapes, formats):
        path = models / f"{shape}-{layers}-{kind.lower()}-pure.gguf"
        if not path.exists():
            part = path.with_suffix(".part")
            write_model(SHAPES[shape].cut(layers), part, file_type=kind, pure=True)
            os.replace(part, path)
        yield f"{shape}, {layers} layers, {kind}", path


def requantized_files(models: Path, source: Path, formats: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """A real file's weights in each format; rows that do not divide into its blocks are in Q8_0."""
    for kind in formats:
        path = models / f"{source.stem}-{kind.lower()}.gguf"
        if not path.exists():
            command = [sys.executable, "-m", "sis_core", "quantize", str(source), str(path), "--to", kind]
            options = ("--pure", "--requantize", "--fallback", "Q8_0")
            done = subprocess.run([*command, *options], text=True, capture_output=True, check=False)
            if done.returncode:
                _say(f"{source.stem}, {kind}: {_last_line(done.stderr)}")
                continue
        yield f"{source.stem}, {kind}", path


def ours(path: Path, text: Path, side: str, n_ctx: int, n_threads: int) -> tuple[Any, dict[str, Any]]:
    """The tokens, and logits by the ways to feed them: of an instruction set, or of ``numpy``, the reference."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "benchmarks")) | ({"SIS_ISA": side} if side in ISAS else {})
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.npz"
        asked = {"path": str(path), "text": str(text), "n_ctx": n_ctx, "n_threads": n_threads, "side": side}
        asked |= {"out": str(out)}
        done = subprocess.run([sys.executable, "-m", "speed.logits", json.dumps(asked)], env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip
        if done.returncode:
            raise PeersError(_last_line(done.stderr) or f"ended with code {done.returncode}")
        with np.load(out) as found:
            return found["tokens"], {steps: found[steps] for steps in STEPS if steps in found}


def divergence(true: Any, found: Any) -> list[float]:
    """KL divergence of each row of logits, in nats."""
    rows = zip(true, found, strict=True)  # one at a time: a vocabulary may be large
    return [float(kl_divergence(log_softmax(t[None]), log_softmax(f[None]))[0]) for t, f in rows]


def measure(
    name: str, path: Path, text: Path, peers: Sequence[Peer], isas: Sequence[str], n_ctx: int, n_threads: int
) -> Iterator[Row]:
    """Every side on one file; one that cannot read it is said and left out."""
    tokens, reference = ours(path, text, "numpy", n_ctx, n_threads)
    true = coded(reference["prompt"])
    for isa in isas:
        try:
            _, found = ours(path, text, isa, n_ctx, n_threads)
        except PeersError as error:
            _say(f"{name}, {isa}: {error}")
            continue
        for steps, logits in found.items():  # none where this machine does not have the set
            yield Row(name, steps, f"sis, {isa}", divergence(true, coded(logits)))
    for peer, steps in product(peers, STEPS):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                logits = theirs(peer.folder, path, text, steps, tokens, n_threads, Path(scratch))
        except PeersError as error:
            _say(f"{name}, {peer.name}: {error}")
            break
        yield Row(name, steps, peer.name, divergence(true, logits))


def table(rows: Sequence[Row], peers: Sequence[str]) -> str:
    """One line a file and way to feed: the peers' means, those of sis, how many times the better one's; Markdown."""
    isas = [side for side in dict.fromkeys(row.side for row in rows) if side not in peers]
    head = ["file", "tokens", *peers, *isas]
    text = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, steps in dict.fromkeys((row.name, row.steps) for row in rows):
        mine = {row.side: row for row in rows if (row.name, row.steps) == (name, steps)}
        best = min((mine[peer] for peer in peers if peer in mine), key=lambda row: row.mean, default=None)
        cells = [name, steps, *(_cell(mine.get(peer), None) for peer in peers)]
        text.append(f"| {' | '.join(cells + [_cell(mine.get(isa), best) for isa in isas])} |")
    return "\n".join(text)


def _cell(row: Row | None, best: Row | None) -> str:
    if row is None:
        return "–"
    if best is None:
        return f"{row.mean:.1e}"
    ratio, error = row.of(best)
    return f"{row.mean:.1e}, {ratio:.2f} ± {error:.2f}{' ✗' if ratio - 2 * error > 1 else ''}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder of the files; they are made there once")
    parser.add_argument("--text", type=Path, required=True, help="what all models read the beginning of")
    parser.add_argument("--peer", type=_peer, metavar="NAME=FOLDER", action="append", default=[],
                        help="a folder with llama-perplexity; give it for each")  # fmt: skip
    parser.add_argument("--formats", type=lambda text: text.upper().split(","), default=[*FIRST, *MORE],
                        help=f"names with commas between (default: {', '.join(FIRST + MORE)})")  # fmt: skip
    parser.add_argument("--shapes", type=lambda text: text.split(",") if text else [], default=list(RANDOM),
                        help="of files with random weights; empty: none")  # fmt: skip
    parser.add_argument("--layers", type=int, default=4, help="of these")
    parser.add_argument("--real", type=Path, action="append", default=[], help="a file to measure too")
    parser.add_argument("--requantize", type=Path, action="append", default=[], help="a file to measure in each format")
    parser.add_argument("--isa", type=lambda text: text.split(","), default=ISAS, help="instruction sets to force")
    parser.add_argument("--tokens", type=int, default=256, help="that are read; those of the second half are compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--json", type=Path, help="all figures, written after every file; files that it has are not measured again"
    )
    return parser.parse_args()


def _peer(text: str) -> Peer:
    name, found, folder = text.partition("=")
    if not found or not os.access(Path(folder) / "llama-perplexity", os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is not like llama.cpp=FOLDER, with llama-perplexity in the folder")
    return Peer(name, Path(folder))


def main() -> None:
    options = parse_options()
    options.models.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = [Row(**row) for row in json.loads(options.json.read_text("utf-8"))]
    measured = {row.name for row in rows}

    def files() -> Iterator[tuple[str, Path]]:
        yield from ((path.stem, path) for path in options.real)
        for source in options.requantize:
            yield from requantized_files(options.models, source, options.formats)
        yield from random_files(options.models, options.shapes, options.layers, options.formats)

    for name, path in files():
        if name in measured:
            continue
        _say(name)
        rows += measure(name, path, options.text, options.peer, options.isa, options.tokens, options.threads)
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    print(
        f"{places(options.tokens)} places of {options.text.name}",
        table(rows, [p.name for p in options.peer]),
        sep="\n\n",
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
