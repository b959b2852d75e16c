"""Builds a plugin's library with sanitizers and runs the native tests with it.

    python native/sanitize.py                                  # plugins/x86, gcc, the tests of native code
    python native/sanitize.py tests/test_native_attention.py   # only these files
    CC=clang python native/sanitize.py -k linears              # further arguments go to pytest
    SIS_ISA=avx2 python native/sanitize.py                     # a lower rung
    python native/sanitize.py --emulated                       # AMX's tiles in C, and avx_vnni, on AVX-512 BF16
    python native/sanitize.py --threads                        # data races, in place of wrong addresses
    python native/sanitize.py --keep FOLDER                    # build there, and next time only what has changed

Needs a compiler with its sanitizer runtimes (Debian: gcc, or clang with libclang-rt-dev): those of zig are not shared
libraries, and Python must load them before anything else. A leak check would find Python's own. What a sanitizer says
is printed in the end, since pytest would swallow it; what failed is printed at once, since a run may be stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "plugins" / "x86"
FILES = (
    "threads", "native", "pace", "multi_step", "native_best", "native_experts", "merged_experts", "native_attention",
    "native_passing", "native_layouts", "native_row_tables", "bits_in_tiles", "small_scales", "native_gradual",
    "decoders", "fused_linear", "native_load",
)  # fmt: skip
TESTS = [*(f"tests/test_{name}.py" for name in FILES), "plugins/x86/tests/test_x86.py"]
OF_AMX = "plugins/x86/tests/test_amx.py"  # chooses a rung for each test, whatever SIS_ISA says
FLAGS = [
    "-std=c11", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=on", "-fno-math-errno", "-Wall", "-Wextra",
    "-Wno-psabi", "-Wno-unknown-pragmas", "-fno-omit-frame-pointer",
]  # fmt: skip
ADDRESS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=undefined,float-cast-overflow"]
THREADS = ["-fsanitize=thread"]
# It compares and exchanges a byte with itself while others write what lies there: no processor loses their writing.
KNOWN = "race:sis_touch\n"
MARCH = {  # as the processors are called by compilers other than zig's
    "x86_64": ["-march=x86-64"],
    "x86_64_v3": ["-march=x86-64-v3"],
    "x86_64_v4+avx512vnni": ["-march=x86-64-v4", "-mavx512vnni"],
    "x86_64_v3+avxvnni": ["-march=x86-64-v3", "-mavxvnni"],
    "x86_64_v4+avx512vnni+avx512bf16": ["-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"],
    "x86_64_v4+avx512vnni+avx512bf16+amx_tile+amx_bf16": [
        "-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-bf16",
    ],
    "x86_64_v4+avx512vnni+avx512bf16+gfni+amx_tile+amx_int8": [
        "-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mgfni", "-mamx-tile", "-mamx-int8",
    ],
}  # fmt: skip
MARCH_EMULATED = MARCH | {"x86_64_v3+avxvnni": ["-march=x86-64-v3", "-mavx512vnni", "-mavx512vl"]}

PYTEST = """
import sys, pytest
sys.path.append(sys.argv[1])
import sanitize
sys.exit(pytest.main(sys.argv[2:], [sanitize]))
"""


def pytest_runtest_logreport(report: Any) -> None:
    """pytest's hook: what failed is told at once."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", file=sys.stderr, flush=True)


def units() -> list[tuple[Path, str]]:
    """The plugin's sources, and the processor that each is for."""
    config = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))
    listed = config["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["units"]
    return [((ROOT if source.startswith("native/") else PLUGIN) / source, cpu) for source, cpu in listed]


def is_current(made: Path) -> bool:
    """Whether an object is younger than all that it was made of."""
    listed = made.with_suffix(".d")
    if not (made.exists() and listed.exists()):
        return False
    sources = listed.read_text("utf-8").replace("\\\n", " ").split()[1:]
    return all(Path(source).exists() and Path(source).stat().st_mtime < made.stat().st_mtime for source in sources)


def build(folder: Path, compiler: str, *, threads: bool, emulated: bool) -> Path:
    """The library with sanitizers, in ``folder``."""
    sanitizers = THREADS if threads else ADDRESS
    defines, march = (["-DSIS_EMULATED"], MARCH_EMULATED) if emulated else ([], MARCH)
    includes = [f"-I{ROOT / 'sis_core' / 'include'}", f"-I{ROOT / 'native'}"]

    def compiled(path: Path, cpu: str) -> str:
        made = folder / f"{path.stem}.o"
        if not is_current(made):
            command = [compiler, *FLAGS, *sanitizers, *defines, *march[cpu], *includes, "-MD", "-c", str(path)]
            subprocess.run([*command, "-o", str(made)], check=True)
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, *zip(*units(), strict=True)))
    library = folder / "libsis.so"
    if not library.exists() or library.stat().st_mtime < max(Path(made).stat().st_mtime for made in objects):
        shared = ["-shared-libasan"] if "clang" in compiler else []
        subprocess.run([compiler, "-shared", *sanitizers, *shared, *objects, "-o", str(library)], check=True)
    return library


def runtime(compiler: str, *, threads: bool) -> str:
    """Where the compiler keeps its sanitizer."""
    short = "tsan" if threads else "asan"
    name = f"libclang_rt.{short}-x86_64.so" if "clang" in compiler else f"lib{short}.so"
    found = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--keep", type=Path)
    ours, further = parser.parse_known_args()
    compiler = os.environ.get("CC", "gcc")
    with tempfile.TemporaryDirectory(prefix="sis-sanitize-") as temporary:
        folder = ours.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        library = build(folder, compiler, threads=ours.threads, emulated=ours.emulated)
        said = f"log_path={temporary}/said"
        known = Path(temporary) / "known"
        known.write_text(KNOWN, "utf-8")
        env = os.environ | {
            "SIS_LIBRARY": str(library),
            "LD_PRELOAD": runtime(compiler, threads=ours.threads),
            "ASAN_OPTIONS": f"detect_leaks=0:handle_sigbus=0:{said}",  # tests see who else has a handler
            "UBSAN_OPTIONS": f"print_stacktrace=1:{said}",
            "TSAN_OPTIONS": f"history_size=5:exitcode=0:die_after_fork=0:suppressions={known}:{said}",
            "OPENBLAS_NUM_THREADS": "1",  # how numpy's threads wait for each other no sanitizer sees
        }
        all_tests = TESTS if "SIS_ISA" in env else [*TESTS, OF_AMX]
        files = [] if any(".py" in argument for argument in further) else all_tests
        pytest = [sys.executable, "-c", PYTEST, str(ROOT / "native"), "-q", "-p", "no:cacheprovider"]
        findings: list[str] = []
        try:
            code = subprocess.run([*pytest, *files, *further], env=env, cwd=ROOT, check=False).returncode
        finally:
            findings += [path.read_text("utf-8", "replace") for path in sorted(Path(temporary).glob("said.*"))]
            sys.stdout.write("\n".join(findings))
        return code or bool(findings)


if __name__ == "__main__":
    sys.exit(main())
