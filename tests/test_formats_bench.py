"""benchmarks/formats.py: what becomes of its figures. The peers' programs are fakes, and no time is asserted."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import example_formats
import pytest
from formats import COLUMNS, FIRST, MORE, NOTHING, Given, Shaped, contests, table
from random_model import FILE_TYPES
from speed import course
from speed.machine import Neighbours
from speed.plan import Contest
from speed.programs import ProgramsSide, column
from speed.report import lines, missing

from sis_core.registry import Registry

BATCHES = """
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|    32 |     32 |    8 |    512 |    0.751 |  1363.27 |    7.344 |   139.43 |    8.095 |   252.99 |
"""
CONTEST = Contest(Given("m", Path("m.gguf")), tuple(COLUMNS))


def fake(folder: Path, *, bench: str, batches: str = BATCHES, option: str = "--no-warmup") -> ProgramsSide:
    """A peer whose programs print this; llama-bench knows one way to leave its warm-up out."""
    programs = {
        "llama-bench": f"""
            if "--help" in sys.argv: print("{option}")
            elif "{option}" in sys.argv: print({bench!r})
            else: sys.exit("no such option")""",
        "llama-batched-bench": f"print({batches!r})",
    }
    for name, text in programs.items():
        path = folder / name
        body = "\n".join(line.removeprefix(" " * 12) for line in text.splitlines())
        path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return ProgramsSide("peer", folder, 2, 60.0)


BENCH = json.dumps([{"samples_ts": [100.0, 150.0, 200.0]}, {"samples_ts": [20.0, 40.0, 30.0]}])


@pytest.mark.parametrize("option", ["--no-warmup", "-w"])
def test_what_the_peers_programs_say(tmp_path: Path, option: str) -> None:
    run = fake(tmp_path, bench=BENCH, option=option).measure(CONTEST, Path("m.gguf"), Neighbours([]))
    assert run["error"] == ""
    found = {row: reading["value"] for row, reading in run["readings"].items()}
    assert found == {"first512": 100.0, "prompt512": 200.0, "decode0": 30.0, "batch8": 139.43}


def test_a_peer_that_cannot_read_a_type(tmp_path: Path) -> None:
    run = fake(tmp_path, bench="[]", batches="no").measure(CONTEST, Path("m.gguf"), Neighbours([]))
    assert run["readings"] == {}
    assert "no column" in run["error"]
    assert missing([CONTEST], [run | {"contest": "m", "side": "peer", "round": 0}]) == [
        f"m, peer, round 1: no {', '.join(COLUMNS)}: {run['error']}"
    ]
    with pytest.raises(LookupError):
        column("| A |\n| - |\n| 1 |", "B")


def test_the_table_holds_sis_against_the_better_peer() -> None:
    figures = {
        "sis": {"first512": 450, "prompt512": 500, "decode0": 45, "batch8": 100},
        "a": {"first512": 100, "prompt512": 120, "decode0": 50, "batch8": 90},
        "b": {"first512": 150, "prompt512": 110, "decode0": 40},
    }
    runs = [
        {"contest": "m", "side": side, "round": 0, "about": "", "error": "",
         "readings": {row: {"value": value, "others": 0.0} for row, value in found.items()}}
        for side, found in figures.items()
    ]  # fmt: skip
    row = table(lines([CONTEST], runs, NOTHING)).splitlines()[2]
    assert row == "| m | 450 | 3.00 (b) | 500 | 4.17 (a) | 45 | 0.90 (a) ✗ | 100 | 1.11 (a) | 0.90 | 0 of 8 |"


def test_all_formats_can_be_written_and_read() -> None:
    known = Registry.load().names("quant_formats")
    assert set(FIRST + MORE) <= set(FILE_TYPES)
    assert set(FIRST + MORE) <= set(known)
    assert [contest.name for contest in contests(["Q4_0"], [Path("real.gguf")], 4)] == ["Q4_0", "real"]
    assert Shaped("Q4_0", 4).shape.n_layer == 4


def test_the_first_prompt_comes_before_any_other_step(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    class Engine:
        def begin(self, n: int, room: int) -> None:
            calls.append("begin")

        def feed(self, n: int) -> None:
            calls.append(f"feed {n}")

        def token(self, n: int) -> None:
            calls.append("token")

        def rewind(self, length: int) -> None:
            calls.append("rewind")

        def shares(self) -> Iterator[tuple[str, float]]:
            return iter(())

    course.run(Engine, ["first512"])
    assert calls[:2] == ["begin", "feed 512"]
    assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == ["first512"]


@dataclass(eq=False)
class FakeEngine:
    """Tokens take so long; the cache holds as many as were written."""

    now: list[float]
    seconds: float
    n: int = 16

    @property
    def cache(self) -> FakeEngine:
        return self

    def length(self, sequence: int) -> int:
        return self.n

    def rewind(self, length: int) -> None:
        self.n = length

    def token(self, n: int) -> None:
        self.now[0] += self.seconds
        self.n += n
        assert self.n <= course.SPARE


def test_a_format_of_an_example_takes_turns_with_q4_0(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(course, "clock", lambda: now[0])
    base, other = FakeEngine(now, 1 / 512), FakeEngine(now, 1 / 256)
    pairs = example_formats.in_turn(base, other, 3)  # type: ignore[arg-type]
    assert pairs == [(512.0, 256.0)] * 3
    assert now[0] == 3 * 2 * example_formats.SLICE
