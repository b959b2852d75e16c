"""Decoding as a share of what the machine reads: short slices of reading and of decoding, in turn.

    python benchmarks/bandwidth.py MODEL.gguf … --cpus 0,1 [--depth 0] [--slice 0.4] [--seconds 20] [--json out.json]

Memory that many share is faster in one minute than in the next, so each slice of decoding is held against the slice of
reading beside it, by as many threads, from a block as large as what a token reads and in pages of the same size. See
`benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from speed import course
from speed.limits import Work
from speed.machine import Neighbours, describe, pin
from speed.ours import Sis
from speed.report import describe as described

from sis_core.backends.native import NativeBackend
from sis_core.backends.native.memory import Arena
from sis_core.texts.language_model import LanguageModel

GOAL = 0.95
clock = time.perf_counter


@dataclass(frozen=True)
class Pair:
    """Bytes a second of a slice of reading and of the slice of decoding beside it; its tokens a second."""

    read: float
    decoded: float
    tokens: float

    @property
    def share(self) -> float:
        return self.decoded / self.read


def slices(seconds: float, read: Callable[[], float], decode: Callable[[], tuple[float, float]]) -> list[Pair]:
    """Pairs for so long, one at least. ``read`` gives bytes a second, ``decode`` that and tokens a second.

    Which of a pair comes first changes with every pair, so that a machine that becomes faster favours neither.
    """
    found: list[Pair] = []
    end = clock() + seconds
    while not found or clock() < end:
        if len(found) % 2:
            (decoded, tokens), speed = decode(), read()
        else:
            speed, (decoded, tokens) = read(), decode()
        found.append(Pair(speed, decoded, tokens))
    return found


def reading(backend: NativeBackend, n_bytes: int, n_threads: int, seconds: float) -> Callable[[], float]:
    """Bytes a second of a slice that reads a block of ``n_bytes`` over and over."""
    library, arena = backend.library(), Arena(n_bytes)
    arena.array[:: 1 << 12] = 1  # every page of its own, not the one page of zeros

    def read() -> float:
        times: list[int] = []
        while sum(times) < 1e9 * seconds:
            times.append(library.read(arena.address, n_bytes, n_threads))
        return 1e9 * n_bytes * len(times) / sum(times)

    return read


def decoding(
    engine: Sis, depth: int, seconds: float, weight_bytes: int, kv_bytes: int
) -> Callable[[], tuple[float, float]]:
    """Bytes and tokens a second of a slice of one token a step, behind ``depth`` tokens or a few more."""

    def decode() -> tuple[float, float]:
        n_bytes = n = 0
        taken = 0.0
        while taken < seconds:
            if engine.cache.length(0) >= depth + course.SPARE:
                engine.rewind(depth)
            started = clock()
            engine.token(1)
            taken += clock() - started
            n += 1
            n_bytes += weight_bytes + kv_bytes * engine.cache.length(0)
        return n_bytes / taken, n / taken

    return decode


def weight_bytes(model: LanguageModel, path: Path) -> int:
    """Bytes of weights that a token reads, as they lie in memory: tiles may be larger than the file's rows."""
    backend = model.backends[0]
    matrices = [weight for weight in model.network.weights() if len(weight.shape) > 1]
    made = [(weight.nbytes, backend.handling(weight, model.options)) for weight in matrices]
    taken = sum(handling.nbytes or size if handling else size for size, handling in made)
    return round(Work.of(path).n_bytes * taken / sum(size for size, _ in made))


def measure(path: Path, n_threads: int, depth: int, seconds: float, slice: float) -> tuple[int, list[Pair]]:
    """Bytes of weights of a token, and the pairs; exits where no native backend runs the model."""
    engine = Sis(str(path), n_threads, depth + 2 * course.SPARE)
    try:
        backend = engine.registry.get("backends", engine.model.backend)
        if not isinstance(backend, NativeBackend):
            sys.exit(f"{path}: {backend.name} runs it, which reads nothing by itself; `sis doctor -m {path}` says why")
        n_bytes = weight_bytes(engine.model, path)
        engine.begin(1, depth + 2 * course.SPARE)
        for _ in range(course.WARM_PROMPTS):  # weights are packed meanwhile
            engine.rewind(0)
            engine.feed(max(depth, 16))
        engine.rewind(depth)
        read = reading(backend, n_bytes, n_threads, slice)
        decode = decoding(engine, depth, slice, n_bytes, Work.of(path).kv_bytes)
        read(), decode()
        return n_bytes, slices(seconds, read, decode)
    finally:
        engine.model.close()


def row(name: str, n_bytes: int, pairs: list[Pair], others: float) -> str:
    """One row of the table."""
    share = statistics.median(pair.share for pair in pairs)
    low, high = min(pair.share for pair in pairs), max(pair.share for pair in pairs)
    reads = [pair.read / 1e9 for pair in pairs]
    cells = [
        name,
        f"{n_bytes / 1e6:,.1f}",
        f"{statistics.median(reads):.1f} ({min(reads):.0f}–{max(reads):.0f})",
        f"{statistics.median(pair.tokens for pair in pairs):,.1f}",
        f"{100 * share:.1f} % ({100 * low:.0f}–{100 * high:.0f}){'' if share >= GOAL else ' ✗'}",
        str(len(pairs)),
        f"{others:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[],
                        help="processors that both are pinned to, such as 0,1")  # fmt: skip
    parser.add_argument("--depth", type=int, default=0, help="tokens of context")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each model")
    parser.add_argument("--slice", type=float, default=0.4, help="seconds of one and of the other at a time")
    parser.add_argument("--json", type=Path, help="every pair")
    options = parser.parse_args()
    pin(options.cpus)
    machine, neighbours = describe(options.threads, options.cpus), Neighbours(options.cpus)
    print(described(machine), "", sep="\n")
    print("| model | MB a token | GB/s read | tokens/s | share of what is read | pairs | others |")
    print(f"|{' --- |' * 7}", flush=True)
    figures = {}
    for path in options.model:
        neighbours.since(time.process_time())
        n_bytes, pairs = measure(path, options.threads, options.depth, options.seconds, options.slice)
        print(row(path.stem, n_bytes, pairs, neighbours.since(time.process_time())), flush=True)
        figures[path.stem] = {"bytes": n_bytes, "pairs": [asdict(pair) | {"share": pair.share} for pair in pairs]}
    if options.json:
        text = json.dumps({"machine": machine, "depth": options.depth, "models": figures}, indent=1)
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
