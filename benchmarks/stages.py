"""Two stages beside one process on the same cores: tokens a second, by texts at once.

    uv run python benchmarks/stages.py MODEL --cpus 0,1           # stages in processes, by pipes
    uv run --group ray python benchmarks/stages.py MODEL --ray    # in actors, on the cluster of RAY_ADDRESS or here

One process has a thread for each stage. Stages have one thread each, so that no more cores are used; hidden states
come by here on their way, and with --ray go through its store. With one batch on its way only one stage works at a
time; with as many as stages, as `serve` and `batch` have, each has a share of the texts. The texts are compared: they
are the same. All are run in turn, and the best of --rounds counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sis_server.served import Served

from sis_core import LanguageModel, load
from sis_core.cluster import Cluster
from sis_core.stages import backend
from sis_core.testing.machines import ThreadRemote, Threads
from sis_core.texts.request import Piece


class Child:
    """An object in a process of its own, whose methods are asked by a pipe."""

    def __init__(self, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=answer, args=(other, kind, arguments), daemon=True)
        self._process.start()
        other.close()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._ask, method)

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        found, error = self._pipe.recv()
        if error is not None:
            raise error
        return found

    def close(self) -> None:
        self._ask("close")
        self._pipe.close()
        self._process.join()


def answer(pipe: Connection, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What a child does: until its pipe is closed."""
    made: list[Any] = []
    with suppress(EOFError):
        while True:
            method, given = pipe.recv()
            try:
                made = made or [kind(*arguments)]
                pipe.send((getattr(made[0], method)(*given), None))
            except Exception as error:
                pipe.send((None, error))


class Processes(Threads):
    """Machines that are processes: each object has one."""

    def make(self, kind: Callable[..., Any], *arguments: Any, on: int = 0, at_once: int = 1) -> ThreadRemote:
        return super().make(Child, kind, arguments, on=on)


class Here(Cluster):
    name = "processes"

    def join(self, address: str = "") -> Threads:
        return Processes(8)


@contextmanager
def served(model: LanguageModel, n_engines: int) -> Iterator[Served]:
    found = Served(
        model, ("model",), cache_tokens=32 * model.config.n_ctx, stall=None, queue_limit=64, n_engines=n_engines
    )
    found.engine.start()
    try:
        yield found
    finally:
        found.engine.close()


def write(served: Served, prompts: Sequence[Sequence[int]], n_tokens: int) -> tuple[float, list[list[int | None]]]:
    """Seconds until all texts were written, and their tokens."""
    heard: list[queue.SimpleQueue[Piece]] = [queue.SimpleQueue() for _ in prompts]
    began = time.perf_counter()
    for i, (prompt, outlet) in enumerate(zip(prompts, heard, strict=True)):
        asked = served.model.request(prompt, seed=i, max_tokens=n_tokens, ignore_end=True)
        served.engine.submit(asked, outlet.put)
    texts: list[list[int | None]] = []
    for outlet in heard:
        texts.append([])
        while True:
            piece = outlet.get()
            if piece.error is not None:
                raise piece.error
            texts[-1].append(piece.token)
            if piece.finish_reason is not None:
                break
    return time.perf_counter() - began, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--texts", default="1,2,4,8", help="at once, with commas between")
    parser.add_argument("--tokens", type=int, default=32, help="of each text")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of the prompt that is timed")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpus", help="those of this process, such as 0,1")
    parser.add_argument("--ray", action="store_true", help="stages in actors of Ray")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    if given.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in given.cpus.split(",")})
    if not given.ray:
        backend.the_cluster = lambda registry: Here()
    n, counts = given.stages, [int(each) for each in given.texts.split(",")]
    options = {"n_ctx": given.prompt + given.tokens + 64, "batch_invariant": True, "speculate": "off"}
    best: dict[tuple[str, str], float] = {}
    with (
        load(given.model, n_threads=n, **options) as one,
        load(given.model, n_threads=1, stages=n, **options) as parts,
        served(one, 1) as whole,
        served(parts, 1) as single,
        served(parts, n) as several,
    ):
        ways = {
            f"one process, {n} threads": whole,
            f"{n} stages, one batch": single,
            f"{n} stages, {n} batches": several,
        }
        for each in ways.values():
            write(each, [[1]], 4)  # weights are packed while the first tokens come
        for round in range(given.rounds):
            for k in counts:
                prompts = [one.tokenize(f"Once upon a time {i} {round}") for i in range(k)]
                found = {way: write(each, prompts, given.tokens) for way, each in ways.items()}
                texts = [tokens for _, tokens in found.values()]
                assert texts.count(texts[0]) == len(texts), "the texts differ"
                for way, (seconds, _) in found.items():
                    key = (way, f"{k} text{'s' * (k > 1)}")
                    best[key] = max(best.get(key, 0.0), k * given.tokens / seconds)
            long = [(i * 7 + round) % one.config.n_vocab for i in range(given.prompt)]
            for way, each in ways.items():
                seconds, _ = write(each, [long], 1)
                best[way, "prompt"] = max(best.get((way, "prompt"), 0.0), given.prompt / seconds)
    heads = [*(f"{k} text{'s' * (k > 1)}" for k in counts), "prompt"]
    print(f"| tokens/s | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for way in ways:
        print(f"| {way} | {' | '.join(f'{best[way, head]:.1f}' for head in heads)} |")
    if given.json:
        given.json.write_text(json.dumps({way: {head: best[way, head] for head in heads} for way in ways}, indent=1))


if __name__ == "__main__":
    main()
