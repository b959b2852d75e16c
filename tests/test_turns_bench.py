"""benchmarks/bandwidth.py and benchmarks/neighbours.py: slices and blocks in turn. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import bandwidth
import neighbours
import pytest
from bandwidth import Pair, slices
from neighbours import BLOCK, Round, blocks, spinning


@dataclass
class Clock:
    """Time goes on by what is done, which is remembered."""

    now: float = 0.0
    done: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def does(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.done.append(name)


def test_a_slice_of_decoding_is_held_against_the_reading_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bandwidth, "clock", clock)

    def speed() -> float:  # the machine becomes half as fast
        return 40e9 if clock.now < 2 else 20e9

    def read() -> float:
        clock.does("read", 0.5)
        return speed()

    def decode() -> tuple[float, float]:
        clock.does("decode", 0.5)
        return 0.9 * speed(), 30.0

    found = slices(4.0, read, decode)
    assert clock.done == ["read", "decode", "decode", "read"] * 2
    assert [pair.share for pair in found] == pytest.approx([0.9, 0.9 * 2, 0.9, 0.9])  # but where it changed


def test_the_share_in_the_table_is_the_median_of_the_pairs() -> None:
    pairs = [Pair(40e9, 38e9, 60), Pair(40e9, 39.2e9, 61), Pair(20e9, 10e9, 30)]
    assert bandwidth.row("m", 620_000_000, pairs, 0.0) == (
        "| m | 620.0 | 40.0 (20–40) | 60.0 | 95.0 % (50–98) | 3 | 0.00 |"
    )
    assert "94.0 % (94–94) ✗" in bandwidth.row("m", 620_000_000, [Pair(50e9, 47e9, 60)], 0.0)


def test_blocks_come_in_turn_and_the_first_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(neighbours, "clock", clock)

    def one() -> int:
        clock.does("one", 0.125)
        return 1

    def two() -> int:
        clock.does("two", 0.25 if "two" not in clock.done else 0.0625)  # the first is slow
        return 1

    found = blocks({1: one, 2: two}, 2.0)
    assert [name for i, name in enumerate(clock.done) if clock.done[i - 1 : i] != [name]] == ["one", "two", "one"]
    assert found.one == [4 / BLOCK, 4 / BLOCK]
    assert found.two == [5 / BLOCK, 8 / BLOCK]
    assert (found.first, found.later, found.whole) == (5 / 4, 2.0, 13 / 8)


def test_the_table_names_what_is_below_the_goal() -> None:
    rounds = [Round([100.0, 100.0], [60.0, 98.0]), Round([100.0, 100.0], [80.0, 98.0])]
    assert neighbours.row("m", 1, rounds) == (
        "| m | 1 | 100.0 | 98.0 | 0.70 (0.60–0.80) ✗ | 0.98 (0.98–0.98) | 0.84 (0.79–0.89) ✗ |"
    )


def test_neighbours_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remember(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    with suppress(KeyboardInterrupt), spinning(2):
        assert [child.poll() for child in started] == [None, None]
        assert started[0].args == [sys.executable, "-c", neighbours.SPIN]
        raise KeyboardInterrupt
    assert len(started) == 2
    assert all(child.returncode for child in started)
