"""How many threads to use, and where they may be kept."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path

import psutil

from sis_core.machine.cgroup import cpu_quota

log = logging.getLogger(__name__)

TOPOLOGY = Path("/sys/devices/system/cpu")
CAN_PIN = hasattr(os, "sched_setaffinity")


def usable_cpus() -> list[int]:
    """The logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> list[int]:
    """One usable processor for each physical core: two threads of a core share the units that arithmetic needs."""
    usable = usable_cpus()
    found: dict[str, int] = {}
    for cpu in usable:
        try:
            siblings = (TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        except OSError:  # another system: believe its number of cores
            return usable[: psutil.cpu_count(logical=False) or len(usable)]
        found.setdefault(siblings, cpu)
    return list(found.values())


def default_threads() -> int:
    """One thread for each usable physical core, and no more than the control group has processor time for.

    A quota such as 1.5 is rounded to the nearest number: with more threads than that, all of them wait at a barrier
    while one is out of time.
    """
    quota = cpu_quota()
    n_cores = len(cores())
    return n_cores if quota is None else max(1, min(n_cores, int(quota + 0.5)))


def pinned_cpus(n_threads: int) -> list[int] | None:
    """A processor for each thread, of different cores first; None, with a warning, where threads cannot be pinned."""
    if not CAN_PIN:
        log.warning("threads are not pinned: %s does not let a program choose its cores", platform.system())
        return None
    first = cores()
    ordered = first + [cpu for cpu in usable_cpus() if cpu not in first]
    return [ordered[i % len(ordered)] for i in range(n_threads)]


def describe_cores() -> str:
    """One clause for `sis doctor`: what this process may run on."""
    n, n_cores = len(usable_cpus()), len(cores())
    return f"{n_cores} usable core{'s' * (n_cores != 1)} ({n} logical)"


def describe_threads() -> str:
    """One clause for `sis doctor`: how many threads, and why as many."""
    n, n_cores, quota = default_threads(), len(cores()), cpu_quota()
    limits = f"{n_cores} usable core{'s' * (n_cores != 1)}" + (f", a quota of {quota:g}" if quota is not None else "")
    return f"{n} thread{'s' * (n != 1)} ({limits}; {'pinned with --pin' if CAN_PIN else 'cannot be pinned'})"
