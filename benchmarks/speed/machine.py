"""The machine that a table was measured on, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from sis_core.backends.native.library import huge_pages

QUIET = 0.05  # processors that others may use before a row counts as noisy
_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guests are in user time already
_FEATURES = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def _field(text: str, *names: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def describe(n_threads: int, cpus: Sequence[int], cpu_time: bool = False) -> dict[str, Any]:
    """Processor, features, threads, huge pages, load: what a figure depends on."""
    try:
        info = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        info = ""
    features = set(_field(info, "flags", "Features").split())
    return {
        "processor": _field(info, "model name") or platform.processor() or platform.machine(),
        "features": [feature for feature in _FEATURES if feature in features],
        "cores": psutil.cpu_count(logical=False),
        "threads": n_threads,
        "cpus": list(cpus),
        "clock": "processor time" if cpu_time else "time on the wall",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "huge_pages": huge_pages(),
        "load_average": [round(load, 2) for load in psutil.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def pin(cpus: Sequence[int]) -> None:
    """Hold this process, and all that it starts, to some processors; Linux alone can."""
    if not cpus:
        return
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("--cpus: this system cannot pin a process to processors; leave the option out")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        sys.exit(f"--cpus {','.join(map(str, cpus))}: {error.strerror}; there are {psutil.cpu_count()} processors")


class Neighbours:
    """Counts the processor time of everyone else, on the processors that are measured."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = cpus
        self._busy, self._clock, self._own = 0.0, 0.0, 0.0
        self.start()

    def start(self) -> None:
        """A new process begins: none of its time is used yet."""
        self._busy, self._clock, self._own = self._total(), time.monotonic(), 0.0

    def since(self, own: float) -> float:
        """Processors that others used since the last call; ``own`` is the time that our process has used so far."""
        busy, clock = self._total(), time.monotonic()
        wall = max(clock - self._clock, 1e-3)
        others = (busy - self._busy - (own - self._own)) / wall
        self._busy, self._clock, self._own = busy, clock, own
        return max(0.0, others)

    def _total(self) -> float:
        times = psutil.cpu_times(percpu=True)
        chosen = [times[cpu] for cpu in self._cpus] if self._cpus else times
        return float(sum(sum(v for k, v in t._asdict().items() if k not in _IDLE) for t in chosen))
