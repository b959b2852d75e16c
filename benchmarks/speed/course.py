"""What one process measures, for either side, and how it says so: one JSON object a line, as soon as a row is done.

Free of sis and of anything outside the standard library: the peer's interpreter runs it too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

SECONDS = 1.5  # a row is repeated for so long
CHUNK = 512  # rows of a step of a prompt
SPARE = 64  # steps of a decoding row, at most
WARM = 8  # steps before it: an engine may spend some of its first ones on preparing weights
WARM_PROMPTS = 3  # before prompts, as long as nobody asks for the first, for the same reason
clock = time.perf_counter  # or processor time; see `request`


class Engine(Protocol):
    """A loaded model with one sequence, or several that are fed one token at a time."""

    def begin(self, n: int, room: int) -> None:
        """Forget everything; sequences 0 to n - 1 may now hold ``room`` tokens each."""

    def feed(self, n: int) -> None:
        """The next n tokens of sequence 0, in steps of `CHUNK`; the logits after the last."""

    def token(self, n: int) -> None:
        """One more token of each of n sequences, in one step."""

    def rewind(self, length: int) -> None:
        """Sequence 0 forgets all but the first tokens."""

    def shares(self) -> Iterator[tuple[str, float]]:
        """Percent of a step, then of a token, that are spent outside native code, where that can be measured."""


def say(**fields: Any) -> None:
    """One line for the parent, with the processor time of this process so far."""
    print(json.dumps(fields | {"cpu": time.process_time()}), flush=True)


def seconds(run: Callable[[], object], most: int, prepare: Callable[[], object] = lambda: None) -> float:
    """The median of runs that take `SECONDS` in all, at least one and at most ``most``; preparing is not timed."""
    times: list[float] = []
    while not times or (len(times) < most and sum(times) < SECONDS):
        prepare()
        started = clock()
        run()
        times.append(clock() - started)
    return statistics.median(times)


def prompt(engine: Engine, n: int, room: int) -> float:
    """Tokens a second of a prompt that begins a text; the sequence then holds it."""
    return n / seconds(lambda: engine.feed(n), 16, lambda: engine.begin(1, room))


def first(engine: Engine, n: int, room: int) -> float:
    """Tokens a second of the first prompt after loading, which may pay for what later ones find done."""
    engine.begin(1, room)
    started = clock()
    engine.feed(n)
    return n / (clock() - started)


def decode(engine: Engine, depth: int, held: int) -> float:
    """Tokens a second of one sequence that holds ``depth`` tokens; it holds at least ``held`` before."""
    if depth > held:
        engine.feed(depth - held)
    else:
        engine.rewind(depth)
    for _ in range(WARM):
        engine.token(1)
    engine.rewind(depth)
    engine.token(1)
    return 1 / seconds(lambda: engine.token(1), SPARE - 2)


def batch(engine: Engine, n: int) -> float:
    """Tokens a second of n sequences that share every step."""
    engine.begin(n, SPARE)
    for _ in range(WARM):
        engine.token(n)
    engine.begin(n, SPARE)
    engine.token(n)
    return n / seconds(lambda: engine.token(n), SPARE - 2)


def attempt(row: str, measure: Callable[[], float]) -> bool:
    """Say a row's figure, or why there is none: the others are measured all the same."""
    try:
        say(row=row, value=measure())
    except Exception as error:
        say(row=row, error=f"{type(error).__name__}: {error}")
        return False
    return True


def run(open_engine: Callable[[], Engine], rows: list[str]) -> None:
    """Measure the rows and say each: loading first, or a prompt, then depths from the deepest: no text is fed twice."""
    started = clock()

    def numbers(kind: str) -> list[int]:
        return sorted(int(row.removeprefix(kind)) for row in rows if row.startswith(kind))

    firsts, prompts, depths, batches = numbers("first"), numbers("prompt"), numbers("decode"), numbers("batch")
    room = max([0, *firsts, *prompts, *depths]) + SPARE
    engine = open_engine()
    if firsts:
        attempt(f"first{firsts[0]}", partial(first, engine, firsts[0], room))
    else:
        engine.begin(1, SPARE)
        engine.token(1)
        say(row="load", value=clock() - started)
    if prompts or depths:
        for _ in range(1 if firsts else WARM_PROMPTS):
            engine.begin(1, max(room, CHUNK))
            engine.feed(min(room, CHUNK))  # every buffer and thread exists after this
    held = 0
    for n in prompts:
        held = n if attempt(f"prompt{n}", partial(prompt, engine, n, room)) else 0
    if not held:
        engine.begin(1, room)
    for depth in reversed(depths):
        if attempt(f"decode{depth}", partial(decode, engine, depth, held)):
            held = depth
        else:
            engine.begin(1, room)
            held = 0
    for n in batches:
        attempt(f"batch{n}", partial(batch, engine, n))
    if wanted := {"step", "token"} & set(rows):
        for row, value in engine.shares():
            if row in wanted:
                say(row=row, value=value)


def request() -> dict[str, Any]:
    """What the parent asks for: the only argument, as JSON. Times are processor time if it says ``cpu``."""
    global clock
    asked: dict[str, Any] = json.loads(sys.argv[1])
    if asked.get("cpu"):
        clock = time.process_time
    return asked
