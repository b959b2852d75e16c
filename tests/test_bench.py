"""sis bench: what is measured, how it is printed, and peers."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
from workbench import inside, interrupted, refused, sis

from sis_core.errors import BackendError, ContextError
from sis_core.registry import Registry
from sis_core.texts.language_model import load
from sis_core.workbench.benchmark import BinaryPeer, Case, PythonPeer, Runner, make_cases, summarise

FAST = ("-p", 16, "-n", 4, "-r", 2)


def test_every_combination() -> None:
    cases = make_cases([512], [128, 0], [1, 8], [0, 1024])
    assert [case.name for case in cases] == [
        "pp512", "tg128", "pp512 × 8", "tg128 × 8",
        "pp512 @ d1024", "tg128 @ d1024", "pp512 × 8 @ d1024", "tg128 × 8 @ d1024",
    ]  # fmt: skip
    assert (cases[-1].n_tokens, cases[-1].n_ctx) == (1024, 1152)
    with pytest.raises(ContextError, match="there is nothing to measure"):
        make_cases([0], [0], [1], [0])


def test_median_and_spread() -> None:
    found = summarise([10.0, 30.0, 20.0])
    assert (found.median, found.low, found.high, found.spread, found.n) == (20, 10, 30, 10, 3)
    assert summarise([5.0]).spread == 0


@pytest.mark.parametrize("case", [Case("pp", 40, 2, 8), Case("tg", 5, 3, 8), Case("pp", 600)])
def test_a_run_does_what_it_says(random_model: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from sis_core.texts import session

    made = []
    real = session.Session.__init__

    def watched(self: session.Session, *args: object, **options: object) -> None:
        real(self, *args, **options)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(session.Session, "__init__", watched)
    with load(random_model, registry=Registry.load(), n_ctx=600) as model:
        assert Runner(model).sample(case) > 0
    (used,) = made
    assert used.stats.rows == case.batch * (case.n + case.depth)
    timed = case.n if case.kind == "tg" else -(-case.n_tokens // 512)
    assert used.stats.steps == timed + (case.batch if case.depth else 0)


def test_the_program_prints_every_form(random_model: Path) -> None:
    text = sis("bench", random_model, *FAST, "--batch", "1,2", "--depth", "0,8", "-o", "md")
    assert text.returncode == 0, text.stderr
    assert "backend " in text.stdout.splitlines()[0]
    assert "threads " in text.stdout.splitlines()[0]
    assert "| tg4 × 2 @ d8 |" in text.stdout
    rows = list(csv.DictReader(io.StringIO(sis("bench", random_model, *FAST, "-o", "csv").stdout)))
    assert [row["test"] for row in rows] == ["pp16", "tg4"]
    assert all(float(row["min"]) <= float(row["t/s"]) <= float(row["max"]) for row in rows)
    found = json.loads(sis("bench", random_model, *FAST, "--json", "-t", 1).stdout)
    assert (found["threads"], len(found["rows"])) == (1, 2)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-p", "x"], 2, "'x' is not a list like 1,8"),
        (["-p", "0", "-n", "0"], 1, "there is nothing to measure"),
        (["--batch", "0"], 2, "a batch has at least one sequence"),
        (["--on-error", "degrade"], 1, "figures of a run that may guess are worth nothing"),
        (["--vs-binary", "/no/such/llama-bench"], 1, "is not a program"),
        (["--vs-python", "/no/such/python"], 1, "cannot be started"),
        (["--vs-python", sys.executable], 1, "llama-cpp-python cannot be imported"),
    ],
)
def test_bad_options(random_model: Path, args: list[str], code: int, message: str) -> None:
    if "cannot be imported" in message and importlib.util.find_spec("llama_cpp"):
        pytest.skip("llama-cpp-python is installed here")
    refused(inside("bench", random_model, *FAST, *args), message, code=code)


def test_a_peer_that_is_not_installed(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install llama-cpp-python"):
        PythonPeer(random_model, 1)


def program(path: Path, body: str) -> str:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return str(path)


def test_llama_bench_is_read(random_model: Path, tmp_path: Path) -> None:
    fake = program(
        tmp_path / "llama-bench",
        "import json, sys\nargs = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "assert args['-t'] == '3' and args['-d'] == '7' and args['-o'] == 'json', args\n"
        "n = int(args['-r'])\nprint(json.dumps([{'samples_ts': [float(args['-p']) or 1.5] * n}]))\n",
    )
    peer = BinaryPeer(random_model, 3, fake)
    assert peer.samples(Case("pp", 64, depth=7), 2) == [64, 64]
    assert peer.samples(Case("tg", 8, depth=7), 1) == [1.5]
    assert peer.samples(Case("tg", 8, batch=2), 1) is None


def test_a_peer_beside_sis(random_model: Path, tmp_path: Path) -> None:
    fake = program(tmp_path / "llama-bench", "import json\nprint(json.dumps([{'samples_ts': [2.0, 4.0, 6.0]}]))\n")
    found = json.loads(sis("bench", random_model, *FAST, "--batch", "1,2", "--vs-binary", fake, "--json").stdout)
    rows = {row["test"]: row for row in found["rows"]}
    assert rows["pp16"]["peer t/s"] == 4
    assert rows["pp16"]["ratio"] == pytest.approx(rows["pp16"]["t/s"] / 4)
    assert rows["pp16 × 2"]["ratio"] is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys\nsys.exit('no such model')", "ended with code 1: no such model"),
        ("print('hello')", "gave no figures"),
        ("print('[]')", "gave no figures"),
    ],
)
def test_a_llama_bench_that_fails(random_model: Path, tmp_path: Path, body: str, message: str) -> None:
    peer = BinaryPeer(random_model, 1, program(tmp_path / "llama-bench", body))
    with pytest.raises(BackendError, match=message):
        peer.samples(Case("pp", 64), 1)


def test_a_python_peer_is_asked_run_by_run(random_model: Path, tmp_path: Path) -> None:
    fake = program(
        tmp_path / "python",
        "import json, sys\nprint(json.dumps({'version': '9'}), flush=True)\n"
        "for line in sys.stdin:\n    request = json.loads(line)\n"
        "    print(json.dumps({'sample': request['n']} if request['n'] < 9 else {'error': 'too long'}), flush=True)\n",
    )
    peer = PythonPeer(random_model, 1, fake)
    try:
        assert peer.name == "llama-cpp-python 9"
        assert peer.samples(Case("tg", 8), 3) == [8, 8, 8]
        with pytest.raises(BackendError, match="too long"):
            peer.samples(Case("tg", 9), 1)
    finally:
        peer.close()


def test_a_python_peer_that_ends(random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="it ended"):
        PythonPeer(random_model, 1, program(tmp_path / "python", "pass"))


def test_ctrl_c(random_model: Path) -> None:
    interrupted("bench", random_model, "-r", 100_000)
