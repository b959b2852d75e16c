"""How many threads a step uses (native/pace.c), on simulated machines: what each number of members costs is given."""

from __future__ import annotations

import ctypes
import importlib.util
import random
from collections.abc import Callable

import pytest
from c_units import NATIVE, built

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang, which builds, is missing")


@pytest.fixture(scope="module")
def pace(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = built(tmp_path_factory.mktemp("pace"), NATIVE / "pace.c")
    library.pace_members.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.pace_members.restype = ctypes.c_uint32
    library.pace_learn.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64]
    library.pace_learn.restype = None
    library.pace_to_watch.argtypes = [ctypes.c_void_p]
    library.pace_to_watch.restype = ctypes.c_uint32
    library.pace_watched.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.pace_watched.restype = None
    return library


class Machine:
    """Steps of one kind on at most ``most`` threads; ``cost`` gives the time of one, and the share of it that waits.

    Processors are ``free`` for more members, or somebody else has them.
    """

    def __init__(self, pace: ctypes.CDLL, most: int) -> None:
        self.pace, self.most, self.state = pace, most, ctypes.create_string_buffer(256)

    def run(
        self, n: int, cost: Callable[[int], tuple[float, float]], rows: int = 1, *, free: bool = True
    ) -> tuple[list[int], float]:
        """Members of each of n steps, and all their milliseconds."""
        used, total = [], 0.0
        for _ in range(n):
            if self.pace.pace_to_watch(self.state):
                self.pace.pace_watched(self.state, free)
            members = self.pace.pace_members(self.state, self.most)
            ms, waits = cost(members)
            self.pace.pace_learn(self.state, members, rows, int(ms * 1e6), int(ms * 1e6 * waits * members))
            used.append(members)
            total += ms
        return used, total


def quiet(members: int) -> tuple[float, float]:
    return 16 / members, 0.03


def busy(members: int) -> tuple[float, float]:
    return (24.0, 0.4) if members > 1 else (18.0, 0.0)


def test_a_quiet_machine_uses_all_threads_and_tries_nothing(pace: ctypes.CDLL) -> None:
    used, _ = Machine(pace, 8).run(1000, quiet)
    assert set(used) == {8}


def test_a_member_that_lost_its_processor_is_left_out_and_comes_back(pace: ctypes.CDLL) -> None:
    machine = Machine(pace, 2)
    machine.run(100, quiet)
    used, ms = machine.run(400, busy, free=False)
    assert used.count(1) > 395
    assert ms <= 400 * busy(1)[0] / 0.99
    used, _ = machine.run(400, quiet)
    assert set(used[-350:]) == {2}


def test_members_that_share_their_processors_are_tried_all_the_same(pace: ctypes.CDLL) -> None:
    """Now and then: it may be better to have them for some of the time."""
    machine = Machine(pace, 2)
    machine.run(100, quiet)
    machine.run(100, busy, free=False)
    used, _ = machine.run(600, lambda members: (18 / members**0.5, 0.1 if members > 1 else 0.0), free=False)
    assert used[-1] == 2


def test_processors_that_look_free_and_are_not_are_tried_seldom(pace: ctypes.CDLL) -> None:
    machine = Machine(pace, 2)
    machine.run(100, quiet)
    used, ms = machine.run(400, busy)
    assert used.count(1) > 385
    assert ms <= 400 * busy(1)[0] / 0.97


@pytest.mark.parametrize("alone", [8.0, 20.0, 100.0])
def test_a_processor_that_is_lost_costs_two_steps(pace: ctypes.CDLL, alone: float) -> None:
    machine = Machine(pace, 2)
    machine.run(100, lambda members: (alone / members, 0.03))
    used, _ = machine.run(20, lambda members: (alone * 2, 0.55) if members > 1 else (alone, 0.0), free=False)
    assert used == [2, 2, *[1] * 18]


class Shared:
    """Two processors, and other programs that have some of them for 3 of every 6 ms: a step stands still meanwhile."""

    def __init__(self, alone: float, together: float, shared: set[int]) -> None:
        self.work, self.shared, self.now = {1: alone, 2: together}, shared, 0.0
        self.begins = (0.0, 1.3)  # of others' slices on each processor

    def cost(self, members: int) -> tuple[float, float]:
        start, left, waits = self.now, self.work[members], 0.0
        others = self.shared if members == 2 else self.shared - {1}
        while left > 1e-9:
            phases = [(self.now - self.begins[cpu]) % 6 for cpu in others]
            stands_still = any(phase < 3 for phase in phases)
            until = min([(3 if phase < 3 else 6) - phase for phase in phases], default=left) + 1e-6
            time = until if stands_still else min(until, left)
            self.now += time
            left -= 0 if stands_still else time
            waits += time if stands_still and members == 2 else 0
        return self.now - start, waits / members / (self.now - start)


@pytest.mark.parametrize("alone", [0.2, 2.0, 8.0, 30.0, 300.0])
@pytest.mark.parametrize("gain", [1.0, 1.3, 1.9])
@pytest.mark.parametrize("shared", [{1}, {0, 1}], ids=["one", "both"])
def test_two_threads_on_shared_processors_are_no_slower_than_one(
    pace: ctypes.CDLL, alone: float, gain: float, shared: set[int]
) -> None:
    """Once they have learnt; a quiet time comes before."""
    machine, n = Machine(pace, 2), max(100, int(3000 / alone))
    machine.run(n // 4, lambda members: (alone / (gain if members > 1 else 1), 0.03))
    others = Shared(alone, alone / gain, shared)
    machine.run(n // 2, others.cost, free=False)
    before = others.now
    machine.run(n, others.cost, free=False)
    after = others.now
    for _ in range(n):
        others.cost(1)
    assert after - before <= (others.now - after) / 0.97


def test_noise_costs_little(pace: ctypes.CDLL) -> None:
    draw = random.Random(4)

    def noisy(members: int) -> tuple[float, float]:
        lost = members > 1 and draw.random() < 0.5
        return (30.0, 0.5) if lost else (10.0 if members > 1 else 16.0, 0.02)

    _, ms = Machine(pace, 2).run(4000, noisy)  # two cost 20 on average, one 16
    assert ms <= 4000 * 16 / 0.95


def test_steps_too_small_to_share_use_one_thread(pace: ctypes.CDLL) -> None:
    used, _ = Machine(pace, 2).run(12_000, lambda members: (0.13, 0.0) if members > 1 else (0.12, 0.0))
    assert used[6000:].count(1) > 5400


def test_half_of_the_threads_when_half_of_the_processors_are_taken(pace: ctypes.CDLL) -> None:
    machine = Machine(pace, 8)
    used, _ = machine.run(1000, lambda members: (30.0, 0.5) if members > 4 else (40 / members, 0.02))
    assert used[-1] == 4
    assert used.count(4) > 900


def test_rows_are_what_is_compared(pace: ctypes.CDLL) -> None:
    """Steps of a kind may have twice the rows: a longer step is no reason to use fewer threads."""
    machine = Machine(pace, 2)
    for _ in range(100):
        for rows in (256, 511):
            used, _ = machine.run(1, lambda members, rows=rows: (rows / 100 / members, 0.2), rows)  # type: ignore[misc]
    assert used == [2]


def test_fewer_threads_than_before(pace: ctypes.CDLL) -> None:
    machine = Machine(pace, 8)
    machine.run(400, busy)
    machine.most = 1
    assert set(machine.run(50, busy)[0]) == {1}
    machine.most = 2
    assert machine.run(1, quiet)[0] == [2]
