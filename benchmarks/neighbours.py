"""Two threads beside one, with neighbours that are busy: tokens a second in blocks of half a second, in turn.

    python benchmarks/neighbours.py MODEL.gguf … --cpus 0,1 [--busy 0,1,2] [--rounds 4] [--seconds 10] [--json out.json]

How many members of the team a step uses is learnt as a text is written; so each round is a process of its own, in
which neighbours spin before the model is loaded, and the first block counts from the first step on. See
`benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from speed import course
from speed.machine import describe, pin
from speed.ours import Sis
from speed.report import describe as described

BLOCK = 0.5  # seconds
GOAL = 0.97
SPIN = "print(flush=True)\nwhile True: pass"
clock = time.perf_counter


@dataclass(frozen=True)
class Round:
    """Tokens a second of each block, with one thread and with two: the first blocks begin with the first step."""

    one: list[float]
    two: list[float]

    @property
    def first(self) -> float:
        """How many times as fast two threads were in the first block."""
        return self.two[0] / self.one[0]

    @property
    def later(self) -> float:
        """The same of all blocks after it; blocks last equally long."""
        return sum(self.two[1:]) / sum(self.one[1:])

    @property
    def whole(self) -> float:
        return sum(self.two) / sum(self.one)


@contextmanager
def spinning(n: int) -> Iterator[None]:
    """That many processes that do nothing but use a processor, from the first moment on."""
    children = [subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) for _ in range(n)]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield
    finally:
        for child in children:
            child.kill()
            child.communicate()


def blocks(steps: Mapping[int, Callable[[], int]], seconds: float) -> Round:
    """Blocks in turn for so long, two of each at least. A step gives the tokens that it wrote.

    Who comes first changes with every pair.
    """
    found: dict[int, list[float]] = {n: [] for n in steps}
    end = clock() + seconds
    turn = list(steps)
    while len(found[turn[0]]) < 2 or clock() < end:
        for n in turn:
            started, tokens = clock(), 0
            while (taken := clock() - started) < BLOCK:
                tokens += steps[n]()
            found[n].append(tokens / taken)
        turn.reverse()
    return Round(found[1], found[2])


def measure(path: str | None, depth: int, texts: bool, seconds: float, reverse: bool) -> Round:
    """One round in this process: both engines are loaded, and no step is taken before the first block.

    Where ``depth`` tokens come first, they are read before, and weights are packed meanwhile.
    """
    room = depth + 2 * course.SPARE
    engines = {n: Sis(path, n, room) for n in ((2, 1) if reverse else (1, 2))}

    def step(engine: Sis) -> int:
        if engine.cache.length(0) >= depth + course.SPARE:
            engine.rewind(depth)
        engine.token(1)
        return 1

    def text(engine: Sis) -> int:
        for _ in engine.model.generate([5], sampler="greedy", max_tokens=course.SPARE, ignore_end=True):
            pass
        return course.SPARE

    for engine in engines.values():
        engine.begin(1, room)
        for _ in range(course.WARM_PROMPTS if depth else 0):
            engine.rewind(0)
            engine.feed(depth)
    write = text if texts else step
    try:
        return blocks({n: partial(write, engine) for n, engine in engines.items()}, seconds)
    finally:
        for engine in engines.values():
            engine.model.close()


def row(name: str, busy: int, rounds: Sequence[Round]) -> str:
    """One row of the table: tokens a second after the first blocks, and how many times as fast two threads were."""

    def ratio(values: Sequence[float]) -> str:
        median = statistics.median(values)
        return f"{median:.2f} ({min(values):.2f}–{max(values):.2f}){'' if median >= GOAL else ' ✗'}"

    blocks = [[v for r in rounds for v in r.one[1:]], [v for r in rounds for v in r.two[1:]]]
    cells = [name, str(busy), *(f"{statistics.median(values):,.1f}" for values in blocks)]
    cells += [ratio([r.first for r in rounds]), ratio([r.later for r in rounds]), ratio([r.whole for r in rounds])]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", help="the model that comes with sis by default")
    parser.add_argument("--busy", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2],
                        help="how many neighbours: 0,1,2")  # fmt: skip
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[],
                        help="processors that all are pinned to, neighbours too, such as 0,1")  # fmt: skip
    parser.add_argument("--depth", type=int, default=0, help="tokens of context")
    parser.add_argument("--texts", action="store_true", help="greedy texts of 64 tokens, not single steps")
    parser.add_argument("--rounds", type=int, default=4, help="each a process of its own")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    parser.add_argument("--json", type=Path, help="every block")
    options = parser.parse_args()
    pin(options.cpus)
    machine = describe(2, options.cpus)
    print(described(machine), "", sep="\n")
    print("| model | neighbours | one thread | two | first half second | later | whole |")
    print(f"|{' --- |' * 7}", flush=True)
    figures = []
    for path in options.model or [None]:
        name = Path(path).stem if path else "built in"
        for busy in options.busy:
            rounds = []
            for i in range(options.rounds):
                asked = (path, options.depth, options.texts, options.seconds, i % 2 > 0)
                with spinning(busy), ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    rounds.append(pool.submit(measure, *asked).result())
            print(row(name, busy, rounds), flush=True)
            figures.append({"model": name, "busy": busy, "rounds": [asdict(found) for found in rounds]})
    if options.json:
        text = json.dumps({"machine": machine, "texts": options.texts, "depth": options.depth, "figures": figures})
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
