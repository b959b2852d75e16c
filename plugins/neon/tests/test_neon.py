"""The ARM kernels on every rung: directly on an ARM machine, elsewhere in an emulated Python (native/arm64_python.sh).

Under emulation, an instruction that the processor lacks ends the process, and what the system says about the processor
follows QEMU_CPU: each processor runs its best rung, so that nothing newer than it knows is ever executed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sis_core.testing.kernels import KernelSuite, load, on_each_rung
from sis_core.testing.networks import VARIANTS

sis_neon = pytest.importorskip("sis_neon", reason="sis-neon is not installed")
from sis_neon.backend import NeonBackend  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
ISAS = ("portable", "neon", "neon_dotprod", "neon_fhm", "neon_i8mm")
BEST = os.environ.get("SIS_TEST_BEST")  # under emulation, the best rung of the processor
REASON = NeonBackend().idle_reason()
needs_arm = pytest.mark.skipif(REASON is not None, reason=f"the neon backend is idle: {REASON}")

backend = on_each_rung(NeonBackend, ISAS)


@needs_arm
class TestKernels(KernelSuite):
    """Each against the codecs and the reference."""

    halves = ("neon_fhm", "neon_i8mm")
    if BEST:  # emulation is slow
        variants = VARIANTS[::3]
        kv_types = ("f16",)


@needs_arm
@pytest.mark.parametrize("isa", [*ISAS, "avx2"])
def test_only_what_the_machine_has_can_be_forced(isa: str, tmp_path: Path) -> None:
    best = load(NeonBackend, "", tmp_path).isa_name
    (tmp_path / isa).mkdir()
    library = load(NeonBackend, isa, tmp_path / isa)
    if isa not in ISAS:
        expected = best, "SIS_ISA is not one of portable, neon, neon_dotprod, neon_fhm, neon_i8mm"
    elif ISAS.index(isa) > ISAS.index(best):
        expected = best, "SIS_ISA names instructions that this machine does not have"
    else:
        expected = isa, "chosen by SIS_ISA"
    assert (library.isa_name, library.isa_reason) == expected
    assert not BEST or best == BEST


def test_a_wrong_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert NeonBackend().idle_reason() == "this machine is riscv64, not aarch64"


def emulated_python() -> Path:
    """The Python that `.ci/run` makes; without it a test is skipped, but never where CI is set."""
    cache = os.environ.get("XDG_CACHE_HOME")
    python = (Path(cache, "sis") if cache else ROOT / "build") / "arm64" / "python"
    missing = None if shutil.which("qemu-aarch64-static") else "qemu-aarch64-static is not installed"
    if missing is None and not python.exists():
        missing = f"no emulated Python: make one with `native/arm64_python.sh {python.parent}`"
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return python


# Each processor with its best rung and the tests that it runs. Plain C is the same on all of them; the upper rungs
# differ in integer weights and in F16 alone. Of decoders, attention and experts only what is quick;
# numbers of rows on one of them.
OTHERS = ("decoders", "native_attention", "native_experts")
FILES = [Path(__file__), *(ROOT / "tests" / f"test_{name}.py" for name in OTHERS)]
UPPER = "test_neon and not emulation and not (every_network and not q8_0)"
EXPERTS = "native_experts and every_format and packed and Q4_0"
QUICK = "whole_vectors or writes_its_own or damaged_key or hold_the_codec or logits_are_near and (bf16 or q8_0)"
PROCESSORS = {
    "cortex-a53": (
        "neon",
        "test_neon and not emulation and not any_number and not (portable and not (linears or forced)) "
        f"or neon and ({QUICK}) or {EXPERTS}",
    ),
    "neoverse-n1": ("neon_dotprod", f"(neon_dotprod or forced) and {UPPER} or {EXPERTS}"),
    "max,pauth-impdef=on,sve=off": (
        "neon_i8mm",
        f"(neon_i8mm or neon_fhm and F16 or forced) and {UPPER} and not any_number or neon_i8mm and ({QUICK}) "
        f"or {EXPERTS} or native_experts and (every_format and packed and F16 or every_choice and gpt)",
    ),
}


def write_metadata(source: Path, folder: Path) -> None:
    """What an installation would leave of a package that is imported from its source: its version and entry points."""
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = (f"{name} = {module}\n" for name, module in project.get("entry-points", {}).get("sis", {}).items())
    (info / "entry_points.txt").write_text("[sis]\n" + "".join(points))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What emulated programs have in their environment: a library made on this machine, and what is installed."""
    emulated_python()
    library = tmp_path_factory.mktemp("arm") / "libsis.so"
    command = [sys.executable, ROOT / "native" / "zig.py", ROOT / "plugins" / "neon", "linux-aarch64", library]
    subprocess.run(command, check=True)
    plugins = [ROOT / "plugins" / name for name in ("ggml_quants", "kquants", "neon", "q4_0", "q8_0", "samplers")]
    installed = tmp_path_factory.mktemp("installed")
    for source in (ROOT, *plugins):
        write_metadata(source, installed)
    return {"SIS_LIBRARY": str(library), "PYTHONPATH": os.pathsep.join(map(str, [installed, ROOT, *plugins]))}


def emulated_tests(*arguments: str | Path) -> list[str | Path]:
    """The command that runs tests in the emulated Python."""
    return [emulated_python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", *arguments]


@pytest.fixture(scope="module")
def emulations(shared: dict[str, str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """These tests on every processor at once."""
    running, cores = {}, sorted(os.sched_getaffinity(0))
    for n, (processor, (best, tests)) in enumerate(PROCESSORS.items()):
        core = cores[min(n, len(cores) - 1)]  # threads that wait for each other would spin on more than there are
        env = os.environ | shared | {"QEMU_CPU": processor, "SIS_TEST_BEST": best}
        alone = "addopts=--import-mode=importlib -m 'not full'"  # it has no xdist
        running[processor] = subprocess.Popen(
            ["taskset", "-c", str(core), *emulated_tests(alone, *FILES, "-k", tests)], env=env, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    yield running
    for process in running.values():
        if process.stdout and not process.stdout.closed:  # no test has waited for it
            process.kill()
            process.communicate()


emulated = pytest.mark.skipif(REASON is None or platform.system() != "Linux", reason="tested without emulation")


@emulated
@pytest.mark.parametrize("processor", PROCESSORS)
def test_under_emulation(processor: str, emulations: dict[str, subprocess.Popen[str]]) -> None:
    shown, _ = emulations[processor].communicate()
    assert emulations[processor].returncode == 0, shown[-5000:]
    assert " passed" in shown


@pytest.mark.full
@emulated
@pytest.mark.parametrize("processor", PROCESSORS)
def test_whole_texts_under_emulation(processor: str, shared: dict[str, str]) -> None:
    """Guesses change no bit of a text on any rung."""
    file = ROOT / "tests" / "test_speculation_native.py"
    command = emulated_tests("addopts=--import-mode=importlib", file, "-m", "full", "-rs")
    env = os.environ | shared | {"QEMU_CPU": processor}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "2 passed" in done.stdout
    assert "skipped" not in done.stdout
