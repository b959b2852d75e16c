"""Processes that measure, one at a time, and the rounds in which the sides take turns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sis_core.errors import SisError
from sis_core.workbench.benchmark import BinaryPeer, Case
from speed.course import CHUNK
from speed.machine import Neighbours
from speed.plan import Contest, number, tokens_needed
from speed.theirs import FLAGS

Run = dict[str, Any]
"""One process's outcome: contest, side, round, about, error, and readings by row ({"value", "others"})."""

BENCHMARKS = Path(__file__).parents[1]
COMPILED = Path(tempfile.gettempdir()) / "sis-benchmark-modules"  # compiled, as pip leaves them and uv does not
BENCH_TOKENS = 32  # that llama-bench decodes


class Side(Protocol):
    """One of the programs that are compared."""

    @property
    def name(self) -> str: ...

    def measure(self, contest: Contest, path: Path, neighbours: Neighbours) -> Run:
        """Whatever it could measure, and what went wrong. It raises nothing."""


@dataclass(frozen=True)
class PythonSide:
    """sis or llama.cpp in an interpreter that speaks `course`."""

    name: str
    python: str
    n_threads: int
    timeout: float
    flag: str = ""  # of llama.cpp's; without one it is sis
    cpu: bool = False  # processor time instead of time on the wall

    def measure(self, contest: Contest, path: Path, neighbours: Neighbours) -> Run:
        asked = {"path": str(path), "n_threads": self.n_threads, "rows": contest.rows, "flag": self.flag}
        asked["cpu"] = self.cpu
        asked["room"] = max(CHUNK, *map(tokens_needed, contest.rows))
        environment = dict(os.environ, PYTHONPATH=str(BENCHMARKS), PYTHONPYCACHEPREFIX=str(COMPILED))
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if contest.isa and not self.flag:
            environment["SIS_ISA"] = contest.isa
        command = [self.python, "-m", "speed.theirs" if self.flag else "speed.ours", json.dumps(asked)]
        with tempfile.TemporaryFile("w+") as errors:
            try:
                child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
            except OSError as error:
                return {"readings": {}, "about": "", "error": f"{self.python} cannot be started: {error.strerror}"}
            neighbours.start()
            timer = threading.Timer(self.timeout, child.kill)
            timer.start()
            with child:
                assert child.stdout is not None
                run = listen(child.stdout, contest.rows, neighbours)
            timed_out = not timer.is_alive()
            timer.cancel()
            if child.returncode:
                errors.seek(0)
                said = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
                run["error"] = "it took too long" if timed_out else f"{_ending(child.returncode)}: {said}"
        return run


def listen(lines: IO[str], rows: Sequence[str], neighbours: Neighbours) -> Run:
    """Read what a child says while it says it, so that each row is charged with its own disturbance."""
    run: Run = {"readings": {}, "about": "", "error": ""}
    for line in lines:
        if not line.startswith("{"):
            continue  # a library's own chatter
        said = json.loads(line)
        others = neighbours.since(said["cpu"])
        if "about" in said:
            run["about"] = said["about"]
        elif "error" in said:
            run["error"] = said["error"]
        elif said["row"] in rows:
            run["readings"][said["row"]] = {"value": said["value"], "others": round(others, 3)}
    return run


def _ending(code: int) -> str:
    return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"


@dataclass(frozen=True)
class BenchSide:
    """A llama-bench program: prompts and decoding, one row a process."""

    name: str
    program: str
    n_threads: int
    flag: str

    def measure(self, contest: Contest, path: Path, neighbours: Neighbours) -> Run:
        run: Run = {"readings": {}, "about": Path(self.program).name, "error": ""}
        options = ("-fa", "1" if self.flag == "flash" else "0", "-ub", "512")
        for row in contest.rows:
            if not row.startswith(("prompt", "decode")):
                continue
            n = number(row)
            case = Case("pp", n) if row.startswith("prompt") else Case("tg", BENCH_TOKENS, depth=n)
            before = _children_seconds()
            neighbours.start()
            try:
                peer = BinaryPeer(path, self.n_threads, self.program, options)
                found = peer.samples(case, 1)
            except SisError as error:
                run["error"] = str(error)
                continue
            others = neighbours.since(_children_seconds() - before)
            if found:
                run["readings"][row] = {"value": found[0], "others": round(others, 3)}
        return run


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def sides(python: str | None, bench: str | None, n_threads: int, timeout: float, cpu: bool = False) -> list[Side]:
    """sis, and every way in which the peer may run."""
    found: list[Side] = [PythonSide("sis", sys.executable, n_threads, timeout, "", cpu)]
    if python:
        found += [PythonSide(f"llama.cpp, {flag}", python, n_threads, timeout, flag, cpu) for flag in FLAGS]
    if bench:
        found += [BenchSide(f"llama-bench, {flag}", bench, n_threads, flag) for flag in FLAGS]
    return found


def play(
    contests: Sequence[Contest],
    sides_of: Callable[[Contest], Sequence[Side]],
    paths: Mapping[str, Path],
    neighbours: Neighbours,
    runs: list[Run],
    *,
    rounds: int,
    minutes: float,
    begin_round: Callable[[], None],
    after: Callable[[Run], None],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Rounds over all contests and sides, as many as fit into ``minutes``, but one at least; how many there were.

    ``runs`` is what was measured before and grows; what it already holds of a round is not measured again.
    """
    known = {(run["contest"], run["side"], run["round"]) for run in runs}
    started, longest = clock(), 0.0
    for i in range(rounds):
        began = clock()
        if i and began - started + longest > 60 * minutes:
            return i
        begin_round()
        for contest in contests:
            turn = list(sides_of(contest))
            for side in turn if i % 2 == 0 else reversed(turn):  # neither always runs after the other
                if (contest.name, side.name, i) in known:
                    continue
                warm(paths[contest.file.name])
                run = side.measure(contest, paths[contest.file.name], neighbours)
                run |= {"contest": contest.name, "side": side.name, "round": i}
                runs.append(run)
                after(run)
        longest = max(longest, clock() - began)
    return rounds


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
