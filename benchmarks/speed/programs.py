"""llama.cpp or ik_llama.cpp as a side, by the programs that each builds: llama-bench and llama-batched-bench."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed.children import Run
from speed.machine import Neighbours
from speed.plan import Contest, number

STEPS = 32  # that are decoded, after a prompt as short


@dataclass(frozen=True)
class ProgramsSide:
    """One process of llama-bench for the first prompt, the third and decoding; one of llama-batched-bench a batch."""

    name: str
    folder: Path
    n_threads: int
    timeout: float

    def measure(self, contest: Contest, path: Path, neighbours: Neighbours) -> Run:
        run: Run = {"readings": {}, "about": str(self.folder), "error": ""}
        prompts = [row for row in contest.rows if row.startswith(("first", "prompt"))]
        batches = [row for row in contest.rows if row.startswith("batch")]
        for rows, measure in ((prompts, self._prompts), *(([row], self._batch) for row in batches)):
            before = _children_seconds()
            neighbours.start()
            try:
                found = measure(rows, path)
            except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
                run["error"] = _said(error)
                continue
            others = round(neighbours.since(_children_seconds() - before), 3)
            run["readings"] |= {
                row: {"value": value, "others": others} for row, value in found.items() if row in contest.rows
            }
        return run

    def _prompts(self, rows: list[str], path: Path) -> dict[str, float]:
        n = number(rows[0]) if rows else STEPS
        done = self._run("llama-bench", path, "-p", n, "-n", STEPS, "-r", 3, "-o", "json", *self._no_warm_up())
        prompts, decoding = (result["samples_ts"] for result in json.loads(done.stdout))
        return {f"first{n}": prompts[0], f"prompt{n}": prompts[2], "decode0": statistics.median(decoding)}

    def _batch(self, rows: list[str], path: Path) -> dict[str, float]:
        n = number(rows[0])
        sizes: tuple[Any, ...] = ("-npp", STEPS, "-ntg", STEPS, "-npl", n, "-c", 4 * STEPS * n)
        done = self._run("llama-batched-bench", path, *sizes)
        return {rows[0]: column(done.stdout + done.stderr, "S_TG t/s")}  # the fork writes its table to stderr

    def _no_warm_up(self) -> tuple[str, ...]:
        """The first prompt is to be the first: llama.cpp and its forks spell it differently."""
        known = subprocess.run([self.folder / "llama-bench", "--help"], capture_output=True, text=True, check=False)
        return ("--no-warmup",) if "--no-warmup" in known.stdout + known.stderr else ("-w", "0")

    def _run(self, program: str, path: Path, *options: object) -> subprocess.CompletedProcess[str]:
        command = [self.folder / program, "-m", path, "-t", self.n_threads, "-ngl", 0, *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=self.timeout)


def column(table: str, name: str) -> float:
    """The number under a name in a Markdown table's first row; LookupError where there is none."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines() if "|" in line]
    header = next(row for row in rows if name in row) if any(name in row for row in rows) else []
    if not header:
        raise LookupError(f"no column {name}")
    return float(rows[rows.index(header) + 2][header.index(name)])


def _said(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"{Path(error.cmd[0]).name} ended with code {error.returncode}: {last}"
    return f"{type(error).__name__}: {error}"


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
