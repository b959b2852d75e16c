"""How many threads, and where: made-up machines, and the pool of a real library kept to one core."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from sis_core.backend import BackendOptions
from sis_core.cli import measuring
from sis_core.machine import cores as threads
from sis_core.quant import Weight

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

REASON = X86Backend().idle_reason()
needs_library = pytest.mark.skipif(REASON is not None, reason=f"the x86 backend is idle: {REASON}")
needs_pinning = pytest.mark.skipif(not threads.CAN_PIN, reason="this system does not pin threads")


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], usable: list[int]) -> None:
    for cpu, text in siblings.items():
        (folder / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (folder / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(text + "\n")
    monkeypatch.setattr(threads, "TOPOLOGY", folder)
    monkeypatch.setattr(threads, "usable_cpus", lambda: usable)


def test_one_thread_for_each_core_that_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
    machine(tmp_path, monkeypatch, siblings, usable=[0, 1, 4, 5, 7])
    assert threads.cores() == [0, 1, 7]
    monkeypatch.setattr(threads, "CAN_PIN", True)
    assert threads.pinned_cpus(2) == [0, 1]
    assert threads.pinned_cpus(7) == [0, 1, 7, 4, 5, 0, 1], "siblings come last, then cores are shared"


def test_cores_are_counted_in_one_place() -> None:
    root = Path(threads.__file__).parents[1]
    counts = [
        p for p in root.rglob("*.py") if re.search(r"cpu_count|getaffinity|available_cores", p.read_text("utf-8"))
    ]
    assert [str(p.relative_to(root)) for p in counts] == [str(Path("machine", "cores.py"))]


@pytest.mark.parametrize(("given", "taken"), [(None, 5), (2, 2)])
def test_measuring_takes_a_thread_for_each_core(given: int | None, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "default_threads", lambda: 5)
    options = {"backend": None, "n_threads": given, "kv_type": "f16", "on_error": "strict", "other": 1}
    assert measuring.take(options, "bench") == {"backend": None, "n_threads": taken, "kv_type": "f16"}
    assert options == {"other": 1}


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, {}, usable=[0, 1, 2, 3])
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 2)
    assert threads.cores() == [0, 1]
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None)
    assert threads.cores() == [0, 1, 2, 3]


def test_a_system_that_cannot_pin_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(threads, "CAN_PIN", False)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with caplog.at_level(logging.WARNING):
        assert threads.pinned_cpus(2) is None
    assert "threads are not pinned: Darwin does not let a program choose its cores" in caplog.text
    assert "cannot be pinned" in threads.describe_threads()


@needs_library
@needs_pinning
def test_threads_keep_to_their_cores_within_a_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers stay where a step put them until one without pinning; the caller is let go after each step."""
    cpu, before = threads.usable_cpus()[0], os.sched_getaffinity(0)
    monkeypatch.setattr(threads, "cores", lambda: [cpu])
    monkeypatch.setattr(threads, "usable_cpus", lambda: [cpu])
    random = np.random.default_rng(0)
    weight = Weight.from_array("w", random.standard_normal((4096, 64)).astype(np.float32))
    x = random.standard_normal((5, 64)).astype(np.float32)
    # Loading packs on the pool: after it, every worker exists and is free to go anywhere.
    pinned, free = (X86Backend().linear(weight, BackendOptions(n_threads=3, pin=pin)) for pin in (True, False))
    assert pinned is not None
    assert free is not None
    wanted = free(x)
    python = {thread.native_id for thread in threading.enumerate()}

    def of_workers() -> list[set[int]]:
        tasks = [int(name) for name in os.listdir("/proc/self/task")]
        return [os.sched_getaffinity(task) for task in tasks if task not in python]

    n_free = of_workers().count(before)
    assert np.array_equal(pinned(x), wanted)
    assert os.sched_getaffinity(0) == before
    if len(before) > 1:
        assert of_workers().count({cpu}) == 2
        free(x)
        assert of_workers().count({cpu}) == 0
    assert of_workers().count(before) == n_free or len(before) == 1
