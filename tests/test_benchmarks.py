"""Every program of benchmarks/ runs: on something tiny, to an output that can be right. (The full run's.)"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from sis_core.gguf_file import GGUFFile

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = files("sis_tiny") / "tiny.gguf"


def run(program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def accuracy(folder: Path) -> None:
    text = FOLDER.parent / "docs" / "gguf.md"
    out = folder / "out.json"
    few = ("--text", text, "--tokens", 32, "--isa", "portable", "--formats", "Q4_0,Q8_0", "--shapes", "")
    with as_file(TINY) as model:
        options = ("--models", folder / "made", "--real", model, "--requantize", model, "--json", out)
        printed = run("accuracy.py", *options, *few).stdout
        assert run("accuracy.py", *options, *few).stdout == printed  # from what was measured
    rows = json.loads(out.read_text())
    assert len(rows) == 6  # three files, as a prompt and one by one
    assert all(len(row["values"]) == 15 and 0 < max(row["values"]) < 0.1 for row in rows)


def bandwidth(folder: Path) -> None:
    out = folder / "out.json"
    with as_file(TINY) as model:
        options = ("--threads", 1, "--seconds", 0, "--slice", 0.01, "--json", out)
        printed = run("bandwidth.py", model, *options).stdout
    found = json.loads(out.read_text())["models"]["tiny"]
    assert 2e6 < found["bytes"] < 2e7
    (pair,) = found["pairs"]
    assert pair["decoded"] > found["bytes"] * pair["tokens"]  # keys and values are read too
    assert f"{100 * pair['share']:.1f} % (" in printed


def cache_types(folder: Path) -> None:
    text = folder / "text.txt"
    text.write_text("Once upon a time there was a little girl who had a cat. " * 40, "utf-8")
    with as_file(TINY) as model:
        options = ("--text", text, "--ctx", 64, "--chunks", 2, "--every", 1, "--backend", "numpy")
        rows = [line.split("|") for line in run("cache_types.py", model, *options).stdout.splitlines() if "sis" in line]
    losses = {row[3].strip(): float(row[4].split()[0]) for row in rows}
    assert 0 <= losses["f16"] < losses["q8_0"] < losses["q4_0"] < 1


def cluster_sim(folder: Path) -> None:
    pytest.importorskip("simpy", reason="simpy, of the dependency group ray, is not installed")
    lines = run("cluster_sim.py", "--machines", "10,100").stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 100 ")]
    assert float(rows[0][1]) > 10 * float(rows[0][2])  # a model fans out
    found = {(row[1], row[2]): float(row[4]) for row in rows if row[1].endswith("%")}
    assert (
        found["50%", "beginning"] < found["50%", "chance"] < found["50%", "beginning alone"]
    )  # and a hot one breaks that


def eviction(folder: Path) -> None:
    (folder / "long.txt").write_text((FOLDER.parent / "docs" / "gguf.md").read_text("utf-8")[:9000] * 2)
    out = folder / "out.json"
    sizes = ("--length", 512, "--ctx", 256, "--stretch", 256, "--prompt", 200, "--keep", 64)
    run("eviction.py", "--text", folder, "--texts", 1, *sizes, "--kv-type", "f32", "--json", out)
    found = json.loads(out.read_text())
    sinks = found["outgrown"]["sinks:4, 256"]
    assert sinks["256"] < 1e-6 < sinks["512"]
    assert set(found["prompts"]) == {"snapkv:64", "newest 64"}
    assert all(value > 0 for by_end in found["prompts"].values() for value in by_end.values())


def formats(folder: Path) -> None:
    """The program itself is run by tests/test_formats_bench.py; here what it says about itself."""
    assert "--examples" in run("formats.py", "--help").stdout


def memory(folder: Path) -> None:
    with as_file(TINY) as model:
        found = json.loads(run("memory.py", model, "--prompt", 16, "--tokens", 4).stdout)
    assert 1 < found["file_mib"] < found["before_mib"]
    assert found["peak_VmRSS_mib"] > found["cache_mib"] > 0


def native_bench(folder: Path) -> None:
    """The program itself is run by tests/test_native_bench.py; here what it says about itself."""
    assert "--peer" in run("native_bench.py", "--help").stdout


def neighbours(folder: Path) -> None:
    out = folder / "out.json"
    printed = run("neighbours.py", "--busy", "0,1", "--rounds", 1, "--seconds", 0, "--json", out).stdout
    assert printed.count("| built in |") == 2
    for figure in json.loads(out.read_text())["figures"]:
        (blocks,) = figure["rounds"]
        assert len(blocks["one"]) == len(blocks["two"]) == 2
        assert min(blocks["one"] + blocks["two"]) > 0


def neon_instructions(folder: Path) -> None:
    if not shutil.which("qemu-aarch64"):
        missing = "qemu-aarch64, which counts by a plugin, is not installed (Debian: qemu-user)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    found = json.loads(run("neon_instructions.py", "--formats", "Q4_0", "--rows", "0,1", "--json").stdout)
    decoded, product = found
    assert decoded["scalar"] > 2 * decoded["portable"]
    assert product["portable"] > 4 * product["neon_dotprod"] > 0.4
    assert product["neon_dotprod"] < product["neon"] < product["portable"] < product["scalar"]


def oracle(folder: Path) -> None:
    if importlib.util.find_spec("torch"):
        pytest.skip("torch is here: this is the oracle's own environment")
    with as_file(TINY) as model:
        done = run("oracle.py", model, "--tokens", "1,2", code=1)
    assert "benchmarks/oracle_requirements.txt" in done.stderr


def random_model(folder: Path) -> None:
    run("random_model.py", "gpt2", folder / "gpt2.gguf", "--tiny", "--type", "Q8_0")
    with GGUFFile.open(folder / "gpt2.gguf") as file:
        assert file.metadata["general.architecture"] == "gpt2"


def serve(folder: Path) -> None:
    few = ("--seconds", 2, "--start", 1, "--rise", 64, "--halvings", 0, "--threads", 1)
    with as_file(TINY) as model:
        out = run("serve.py", model, *few, "--json", folder / "out.json").stdout
    assert re.search(r"alone: first token +\d+ ms.* [\d.]+ tokens a second", out)
    assert "clients a second" in out
    assert json.loads((folder / "out.json").read_text())


def speculate(folder: Path) -> None:
    out = folder / "out.json"
    with as_file(TINY) as model:
        run("speculate.py", "--model", model, "--rounds", 1, "--max-tokens", 12, "--threads", 1, "--json", out)
    loads = json.loads(out.read_text())["loads"]
    tokens = {load["load"]: load["tokens"] for load in loads if "load" in load}
    assert {name.partition(",")[0] for name in tokens} == {"copy", "rewrite", "json", "chat", "story"}
    assert all(0 < n <= 12 * 2 * 8 for n in tokens.values())
    rates = [load["rate"] for load in loads if "rate" in load]
    assert rates[0] == "plain"
    assert rates[-1] == 1.0


def stages(folder: Path) -> None:
    few = ("--texts", "1,3", "--tokens", 6, "--prompt", 200, "--rounds", 1)
    with as_file(TINY) as model:
        run("stages.py", model, *few, "--json", folder / "out.json")  # which compares the texts
    found = json.loads((folder / "out.json").read_text())
    assert len(found) == 3
    assert all(speed > 0 for row in found.values() for speed in row.values())


PROGRAMS: tuple[Callable[[Path], None], ...] = (
    accuracy, bandwidth, cache_types, cluster_sim, eviction, formats, memory, native_bench, neighbours,
    neon_instructions, oracle, random_model, serve, speculate, stages,
)  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_runs(program: Callable[[Path], None], tmp_path: Path) -> None:
    program(tmp_path)


def test_every_program_is_run() -> None:
    programs = {path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text("utf-8")}
    assert programs == {program.__name__ for program in PROGRAMS}
