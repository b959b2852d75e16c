"""benchmarks/native_bench.py: what becomes of its figures. The sides are fakes, and no time is asserted."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from random_model import write_model
from shapes import MEASURED, SHAPES
from speed import course, limits
from speed.children import PythonSide, listen, play, sides
from speed.limits import Work, compiler, peak, units
from speed.machine import Neighbours
from speed.ours import Sis, share, stopwatch
from speed.plan import EXPERTS, FILES, GOALS, LABELS, TABLE, Contest, contests
from speed.report import Limits, as_json, draw, lines, markdown, missing, table

ROOT = Path(__file__).parent.parent
CONTEST = Contest(FILES["tinyllama-q4_0"], ("prompt512", "decode0", "load"))
WORK = Work(layer_bytes=800, head_bytes=200, layer_macs=1600, head_macs=400, kv_bytes=1, kv_macs=2)
NO_LIMITS = Limits({}, {}, {})


def run(side: str, round: int, others: float = 0.0, error: str = "", **values: float) -> dict[str, Any]:
    readings = {row: {"value": value, "others": others} for row, value in values.items()}
    return {"contest": CONTEST.name, "side": side, "round": round, "about": side, "error": error, "readings": readings}


RUNS = [
    run("sis", 0, prompt512=600, decode0=30, load=0.5),
    run("sis", 1, prompt512=700, decode0=50, load=0.4),
    run("sis", 2, prompt512=900, decode0=40, load=0.6),
    run("llama.cpp, flash", 0, prompt512=100, decode0=20, load=0.2),
    run("llama.cpp, flash", 1, prompt512=140, decode0=22, load=0.3),
    run("llama.cpp, plain", 0, others=0.5, prompt512=90, decode0=32, load=0.25),
    run("llama.cpp, plain", 1, prompt512=95, decode0=48, load=0.25),
]


def test_medians_and_ratios_to_the_best_of_the_peer() -> None:
    prompt, decode, load = lines([CONTEST], RUNS, NO_LIMITS)
    assert (prompt.ours.median, prompt.ours.low, prompt.ours.high) == (700, 600, 900)
    assert (prompt.best, prompt.theirs.median, prompt.ratio) == ("llama.cpp, flash", 120, 700 / 120)
    assert (decode.best, decode.ratio) == ("llama.cpp, plain", 1.0)
    assert (load.best, load.ratio) == ("llama.cpp, flash", 0.5)  # seconds: the smaller is the better one
    assert [line.met for line in (prompt, decode, load)] == [False, False, False]
    assert [line.goal for line in (prompt, decode, load)] == [6.0, 1.12, 1.0]


def test_a_row_that_others_disturbed_is_marked() -> None:
    prompt, decode, _ = lines([CONTEST], RUNS, NO_LIMITS)
    assert (prompt.noisy, prompt.n) == (0, 5)  # only the readings that the row is made of count
    assert (decode.noisy, decode.n) == (1, 5)
    assert "| 1 of 5 |" in table([decode])
    assert table([prompt]).endswith("|  |")


def test_shares_have_no_peer_and_a_most() -> None:
    contest = Contest(FILES["gpt2-q4_0"], ("step", "token"))
    mine = run("sis", 0, step=2.5, token=3.5) | {"contest": contest.name}
    step, token = lines([contest], [mine], NO_LIMITS)
    assert (step.met, token.met, step.ratio) == (True, False, None)
    assert "≤ 3 ✓" in table([step])
    assert "≤ 3 ✗" in table([token])


def test_limits_of_each_kind_of_row() -> None:
    read, macs = 1e6, 4e6
    assert WORK.limit("decode0", read, macs) == pytest.approx(1000)  # 1,000 bytes a token
    assert WORK.limit("decode1024", read, macs) == pytest.approx(1e6 / 2024)
    assert WORK.limit("batch8", read, macs) == pytest.approx(2000)  # 2,000 multiply-adds a token
    assert WORK.limit("batch8", read, 1e9) == pytest.approx(8000)
    attention = 2 * 512 * 513 // 2
    assert WORK.limit("prompt512", 1e9, macs) == pytest.approx(512 * 4e6 / (512 * 1600 + 400 + attention))
    assert WORK.limit("prompt1024", 1e3, 1e12) == pytest.approx(1024 * 1e3 / (2 * 800 + 200 + 1024))
    assert WORK.limit("load", read, macs) is None
    assert WORK.limit("decode0", None, macs) is None


def test_a_row_is_held_against_what_its_instruction_set_may_use() -> None:
    name = CONTEST.file.name
    found = Limits({name: 1e9}, {"avx2_int8": 1e6, "avx512_vnni": 4e6, "amx_int8": 8e6}, {name: WORK})
    assert found.fastest(None) == ("amx_int8", 8e6)
    assert found.fastest("avx512_vnni") == ("avx512_vnni", 4e6)
    assert found.fastest("avx2") == ("avx2_int8", 1e6)
    (line,) = lines([Contest(CONTEST.file, ("decode0",), "avx2")], [], found)
    assert (line.limit, line.ours, line.reached) == (500, None, None)
    (line,) = lines([Contest(CONTEST.file, ("decode0",))], RUNS, found)
    assert line.reached == pytest.approx(40 / 4000)


def test_the_work_of_a_file(tmp_path: Path) -> None:
    shape = SHAPES["tinyllama-1.1b"].scaled_down()
    write_model(shape, tmp_path / "t.gguf", file_type="Q8_0", pure=True)
    work = Work.of(tmp_path / "t.gguf")
    q, kv, ff = shape.n_embd * shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim, shape.n_ff
    one = 2 * q + 2 * shape.n_embd * kv + 3 * shape.n_embd * ff
    assert work.layer_macs == shape.n_layer * one
    assert work.head_macs == shape.n_vocab * shape.n_embd
    assert work.layer_bytes == work.layer_macs * 34 // 32
    assert work.head_bytes == work.head_macs * 34 // 32
    assert work.kv_bytes == 2 * 2 * shape.n_layer * kv
    assert work.kv_macs == 2 * shape.n_layer * shape.n_head * shape.head_dim


def test_a_row_s_experts_are_its_work_and_all_are_a_prompt_s(tmp_path: Path) -> None:
    shape = MEASURED["gpt-oss-20b"].scaled_down()
    write_model(shape, tmp_path / "t.gguf", file_type="MXFP4")
    work = Work.of(tmp_path / "t.gguf")
    one = 3 * shape.n_embd * shape.n_ff_expert
    attention = 2 * shape.n_embd * shape.head_dim * (shape.n_head + shape.n_head_kv)
    router = shape.n_embd * shape.n_expert
    assert work.layer_macs == shape.n_layer * (attention + router + shape.n_expert_used * one)
    assert work.expert_bytes == shape.n_layer * shape.n_expert * one * 17 // 32
    assert work.layer_bytes == shape.n_layer * (attention * 34 // 32 + 4 * router)
    used = work.expert_bytes * shape.n_expert_used / shape.n_expert
    assert work.limit("decode0", 1e6, 1e15) == pytest.approx(1e6 / (work.layer_bytes + used + work.head_bytes))
    assert work.step_bytes(512) == work.layer_bytes + work.expert_bytes
    assert work.step_bytes(1) < work.step_bytes(2) < work.layer_bytes + 2 * used


def test_a_shape_that_is_cut_keeps_the_share_of_its_head() -> None:
    shape = MEASURED["qwen3-30b-a3b"]
    cut = shape.cut(4)
    assert (cut.n_layer, cut.n_expert, cut.vocab.unused) == (4, shape.n_expert, 0)
    assert cut.n_vocab / cut.n_layer == pytest.approx(shape.n_vocab / shape.n_layer, rel=0.005)


def test_pure_files_have_one_type(tmp_path: Path) -> None:
    from sis_core.gguf_file import GGUFFile

    shape = SHAPES["gpt2"].scaled_down()
    found = {}
    for pure in (True, False):
        write_model(shape, tmp_path / f"{pure}.gguf", file_type="Q4_0", pure=pure)
        with GGUFFile.open(tmp_path / f"{pure}.gguf") as file:
            found[pure] = file.tensors["token_embd.weight"].type_name
    assert found == {True: "Q4_0", False: "Q8_0"}  # the head; Q6_K where rows are whole blocks of it


def test_every_goal_is_of_a_row_that_the_full_table_has() -> None:
    for name, goals in GOALS.items():
        assert set((TABLE | EXPERTS)[name]) >= set(goals) - {"prompt2048", "decode4096"}
    full = contests([], [], True, ["avx2"])
    assert [contest.name for contest in full] == [*TABLE, "tinyllama-q4_0 (avx2)", "gpt2-q4_0 (avx2)"]
    assert full[-2].goal("prompt512") == 1.3
    assert {row for contest in full for row in contest.rows} == set(LABELS)
    assert [contest.name for contest in contests([], [], False, [], experts=True)] == list(EXPERTS)


def test_rows_that_a_context_has_no_room_for_are_left_out() -> None:
    (contest,) = contests(["gpt2-q4_0"], list(LABELS), False, [])
    assert "prompt512" in contest.rows
    assert not {"prompt2048", "decode1024", "decode4096"} & set(contest.rows)


# --- Rounds ----------------------------------------------------------------------------------------------------------


class FakeSide:
    """Takes a minute each time."""

    def __init__(self, name: str, log: list[str], clock: list[float]) -> None:
        self.name, self.log, self.clock = name, log, clock

    def measure(self, contest: Contest, path: Path, neighbours: object) -> dict[str, Any]:
        self.log.append(self.name)
        self.clock[0] += 60
        return {"readings": {}, "about": "", "error": ""}


def rounds(tmp_path: Path, runs: list[dict[str, Any]], *, rounds: int, minutes: float) -> tuple[int, list[str]]:
    (tmp_path / "file").write_bytes(b"x")
    log: list[str] = []
    clock = [0.0]
    pair = [FakeSide("sis", log, clock), FakeSide("peer", log, clock)]
    paths = {CONTEST.file.name: tmp_path / "file"}
    done = play([CONTEST], lambda contest: pair, paths, Neighbours([]), runs, rounds=rounds, minutes=minutes,
                begin_round=lambda: None, after=lambda run: None, clock=lambda: clock[0])  # fmt: skip
    return done, log


def test_sides_take_turns_and_time_drops_rounds_but_never_the_first(tmp_path: Path) -> None:
    assert rounds(tmp_path, [], rounds=3, minutes=100) == (3, ["sis", "peer", "peer", "sis", "sis", "peer"])
    assert rounds(tmp_path, [], rounds=3, minutes=5) == (2, ["sis", "peer", "peer", "sis"])
    assert rounds(tmp_path, [], rounds=3, minutes=0) == (1, ["sis", "peer"])


def test_what_was_measured_before_is_not_measured_again(tmp_path: Path) -> None:
    runs = [run("sis", 0), run("peer", 0), run("peer", 1)]
    assert rounds(tmp_path, runs, rounds=2, minutes=100) == (2, ["sis"])
    assert len(runs) == 4


def test_each_row_is_charged_with_its_own_disturbance() -> None:
    said = [
        {"row": "load", "value": 1.0, "cpu": 1.0},
        {"row": "decode0", "value": 9.0, "cpu": 3.0},
        {"about": "us", "cpu": 3.0},
    ]
    seen = []

    def since(own: float) -> float:
        seen.append(own)
        return own / 10

    lines = io.StringIO("".join(json.dumps(line) + "\n" for line in said))
    found = listen(lines, ("decode0",), SimpleNamespace(since=since))  # type: ignore[arg-type]
    assert found == {"readings": {"decode0": {"value": 9.0, "others": 0.3}}, "about": "us", "error": ""}
    assert seen == [1.0, 3.0, 3.0]


def test_others_are_all_busy_time_but_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user nice idle iowait steal guest")  # type: ignore[name-match]
    clock, busy = [100.0], [50.0]
    monkeypatch.setattr("speed.machine.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times(busy[0], 0, 7, 7, 1, 3), times(999, 0, 0, 0, 0, 0)])
    neighbours = Neighbours([0])
    clock[0], busy[0] = 110.0, 58.0
    assert neighbours.since(own=5.0) == pytest.approx(0.3)  # 8 busy, 5 of them ours, in 10 seconds
    clock[0], busy[0] = 120.0, 60.0
    assert neighbours.since(own=7.0) == 0


# --- Sides -----------------------------------------------------------------------------------------------------------


class FakeEngine:
    """Writes down what it is asked for; refuses what a real one would."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.room, self.fed = 0, 0

    def begin(self, n: int, room: int) -> None:
        self.lengths, self.room = [0] * n, room

    def feed(self, n: int) -> None:
        self.fed += n
        self._grow(0, n)

    def token(self, n: int) -> None:
        for sequence in range(n):
            self._grow(sequence, 1)

    def rewind(self, length: int) -> None:
        assert length <= self.lengths[0]
        self.lengths[0] = length

    def shares(self) -> Iterator[tuple[str, float]]:
        yield from (("step", 1.0), ("token", 2.0))

    def _grow(self, sequence: int, n: int) -> None:
        self.lengths[sequence] += n
        assert self.lengths[sequence] <= self.room


@pytest.mark.parametrize(
    "rows", [["prompt512"], ["decode0"], ["decode0", "decode1024"], ["batch8"], ["step"], list(LABELS)], ids=" ".join
)
def test_a_course_says_each_row_and_stays_within_its_room(rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    course.run(lambda: engine, rows)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["row"] for line in said} == {*rows, "load"}
    assert all(line["value"] > 0 for line in said)


def test_a_row_that_fails_says_so_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Narrow(FakeEngine):
        def feed(self, n: int) -> None:
            if n > 1024:
                raise MemoryError("not that many")
            super().feed(n)

    course.run(Narrow, ["prompt512", "prompt2048", "decode0", "decode1024", "decode4096", "batch8"])
    printed = capsys.readouterr().out
    run = listen(io.StringIO("hello\n" + printed), list(LABELS), Neighbours([]))
    assert list(run["readings"]) == ["load", "prompt512", "decode1024", "decode0", "batch8"]
    assert run["error"] == "MemoryError: not that many"


def test_sis_runs_the_course(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "SECONDS", 0.0)
    shape = replace(SHAPES["tinyllama-1.1b"].scaled_down(), n_vocab=1024)
    write_model(shape, tmp_path / "t.gguf", file_type="Q8_0")
    opened: list[Sis] = []

    def engine() -> Sis:
        opened.append(Sis(str(tmp_path / "t.gguf"), 1, 1100))
        return opened[0]

    rows = ["prompt600", "decode0", "decode1024", "batch8"]
    course.run(engine, rows)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["row"] for line in said} == {*rows, "load"}
    assert opened[0].cache.length(7) == 2
    opened[0].model.close()


def test_the_share_outside_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("speed.ours.course.clock", lambda: clock[0])

    def native(seconds: float) -> int:
        clock[0] += seconds
        return 0

    library = SimpleNamespace(run=native, multi_step=native)

    def work() -> None:
        for function in (library.run, library.multi_step) * 2:
            function(3.0)
            clock[0] += 1.0

    with stopwatch(library) as inside:
        assert share(work, inside) == pytest.approx(25.0)
    assert library.run is library.multi_step is native


def child(tmp_path: Path, body: str) -> PythonSide:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{body}")
    program.chmod(0o755)
    return PythonSide("llama.cpp, flash", str(program), 1, 20.0, "flash")


def test_a_child_that_dies_keeps_the_rows_it_said(tmp_path: Path) -> None:
    body = 'import os\nprint(\'{"row": "load", "value": 2, "cpu": 0}\', flush=True)\nos.kill(os.getpid(), 11)\n'
    found = child(tmp_path, body).measure(CONTEST, tmp_path, Neighbours([]))
    assert found["readings"]["load"]["value"] == 2
    assert found["error"] == "it was killed by SIGSEGV: it said nothing"
    found |= {"contest": CONTEST.name, "side": "llama.cpp, flash", "round": 0}
    (gap,) = missing([CONTEST], [found])
    assert gap == (
        "tinyllama-q4_0, llama.cpp, flash, round 1: no prompt512, decode0: it was killed by SIGSEGV: it said nothing"
    )


def test_a_child_that_fails_or_is_not_there(tmp_path: Path) -> None:
    found = child(tmp_path, "raise SystemExit('no such thing')\n").measure(CONTEST, tmp_path, Neighbours([]))
    assert found["error"] == "it ended with code 1: no such thing"
    absent = PythonSide("sis", str(tmp_path / "none"), 1, 20.0).measure(CONTEST, tmp_path, Neighbours([]))
    assert absent["error"].endswith("none cannot be started: No such file or directory")


def test_a_llama_bench_is_run_with_its_flags(tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\na = sys.argv\n"
        "assert a[a.index('-ub') + 1] == '512'\n"
        "print(json.dumps([{'samples_ts': [float(a[a.index('-p') + 1]) + float(a[a.index('-fa') + 1])]}]))\n"
    )
    program.chmod(0o755)
    flash, plain = sides(None, str(program), 1, 20.0)[1:]
    contest = Contest(CONTEST.file, ("prompt512", "decode0", "batch8", "load"))
    assert flash.measure(contest, tmp_path, Neighbours([]))["readings"]["prompt512"]["value"] == 513
    found = plain.measure(contest, tmp_path, Neighbours([]))
    assert {row: reading["value"] for row, reading in found["readings"].items()} == {"prompt512": 512, "decode0": 0}
    found |= {"contest": contest.name, "side": plain.name, "round": 0}
    assert missing([contest], [found]) == []  # it has no other rows


# --- The report ------------------------------------------------------------------------------------------------------


def test_the_report(tmp_path: Path) -> None:
    machine = {
        "processor": "Some CPU", "features": ["avx2"], "cores": 2, "threads": 2, "cpus": [0, 1], "memory_gib": 8.0,
        "huge_pages": "madvise", "clock": "time on the wall", "load_average": [0.1, 0.2, 0.3],
        "system": "Linux", "python": "3.12",
    }  # fmt: skip
    limits = Limits({CONTEST.file.name: 30e9}, {"avx512_vnni": 0.5e12}, {CONTEST.file.name: WORK})
    state = {"machine": machine, "runs": [*RUNS, run("sis", 3, error="broke")], "no_limit": {"amx_int8": "absent"}}
    found = lines([CONTEST], state["runs"], limits)
    text = markdown(state, [CONTEST], found, limits)
    assert "2 threads, pinned to 0,1, 2 cores" in text
    assert (
        "| tinyllama-q4_0 | prompt of 512 | 700 (600–900) | 120 (100–140) | llama.cpp, flash | 5.83 | ≥ 6 ✗ |" in text
    )
    assert "| avx512_vnni | 0.500 T multiply-adds/s |" in text
    assert "| amx_int8 | absent |" in text
    assert "- tinyllama-q4_0, sis, round 4: no prompt512, decode0, load: broke" in text
    assert "**Other processes used the processors**" in text
    assert as_json(found)[0]["ours"]["median"] == 700
    json.dumps(as_json(found))
    draw(found, tmp_path / "ratios.svg")
    assert (tmp_path / "ratios.svg").read_text("utf-8").count("<svg") == 1


@pytest.mark.parametrize("unit", [unit for names in limits.UNITS.values() for unit in names])
def test_every_unit_has_its_program(unit: str) -> None:
    assert (limits.PEAKS / f"{unit}.c").is_file()


@pytest.mark.parametrize("unit", units())
def test_a_peak_is_a_figure_or_a_reason(unit: str) -> None:
    if compiler() is None:
        pytest.skip("no C compiler and no ziglang: peaks are not measured here")
    found = peak(unit, 1)
    assert found > 0 if isinstance(found, float) else found.startswith("this processor has no"), found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "x", "--rows", "prompt7"], "no 'prompt7'; there are prompt512"),
        (["--models", "x", "--files", "llama"], "no 'llama'; there are tinyllama-q4_0"),
        (["--models", "x", "--rung", "sse=python"], "'sse=python' is not like avx2=PYTHON"),
        (["--models", "x", "--resume"], "--resume goes on with a --json file: name it"),
        (["--models", "x", "--cpu"], "--cpu: threads that wait for each other count as well; --threads 1"),
        ([], "--models"),
    ],
)
def test_bad_options_are_refused(options: list[str], message: str) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "native_bench.py")]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_program_from_files_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import native_bench

    monkeypatch.setattr(native_bench, "units", lambda: ())
    monkeypatch.setattr(native_bench, "bandwidth", lambda n_threads, mib: 30e9)
    shape = replace(SHAPES["gpt2"].scaled_down(), n_vocab=1024, n_ctx=1024)
    write_model(shape, tmp_path / "gpt2-q4_0.gguf", file_type="Q8_0")  # in the place of a large one
    said = [{"row": "decode0", "value": 0.5, "cpu": 0.0}, {"about": "the peer", "cpu": 0.0}]
    peer = child(tmp_path, "".join(f"print({json.dumps(line)!r}, flush=True)\n" for line in said)).python
    table = tmp_path / "table.json"
    command = ["native_bench.py", "--models", str(tmp_path), "--files", "gpt2-q4_0", "--rows", "decode0,token",
               "--peer", peer, "--rounds", "1", "--json", str(table)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*command, "--threads", "1"])
    native_bench.main()
    decode, token = json.loads(table.read_text())["table"]
    assert (decode["theirs"]["median"], decode["met"]) == (0.5, True)
    assert 0 < token["ours"]["median"] < 100
    printed = capsys.readouterr().out
    assert "llama.cpp: the peer" in printed
    assert "Not measured" not in printed
    runs = json.loads(table.read_text())["runs"]
    monkeypatch.setattr(sys, "argv", [*command, "--threads", "1", "--resume"])
    native_bench.main()
    assert json.loads(table.read_text())["runs"] == runs
    monkeypatch.setattr(sys, "argv", [*command, "--threads", "2", "--resume"])
    with pytest.raises(SystemExit, match="has figures of other processor, threads"):
        native_bench.main()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sis-x86 is for x86-64")
def test_bandwidth_is_that_of_the_backend_that_works_here() -> None:
    found = limits.bandwidth(1, 1)
    assert isinstance(found, float), found
