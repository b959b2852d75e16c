"""Builds a plugin's library with the address and undefined-behaviour sanitizers and runs the native tests with it.

    python native/sanitize.py                                  # plugins/x86, gcc, the tests of native code
    python native/sanitize.py tests/test_native_attention.py   # only these files
    CC=clang python native/sanitize.py -k linears              # further arguments go to pytest

Needs a compiler with its sanitizer runtimes (Debian: gcc, or clang with libclang-rt-dev): those of zig are not shared
libraries, and Python must load the address sanitizer before anything else. A leak check would find Python's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "plugins" / "x86"
FILES = (
    "native_attention", "decoders", "native_experts", "merged_experts", "native_layouts", "native_load",
    "native_gradual", "threads",
)  # fmt: skip
TESTS = ["plugins/x86/tests/test_x86.py", *(f"tests/test_{name}.py" for name in FILES)]
FLAGS = [
    "-std=c11", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=on", "-fno-math-errno", "-Wall", "-Wextra",
    "-Wno-psabi", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer",
]  # fmt: skip
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


def build(folder: Path, compiler: str) -> Path:
    """The library with sanitizers, in ``folder``."""
    config = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))
    units = config["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["units"]
    objects = []
    for source, cpu in units:
        path = (ROOT if source.startswith("native/") else PLUGIN) / source
        objects.append(str(folder / f"{path.stem}.o"))
        includes = [f"-I{ROOT / 'sis_core' / 'include'}", f"-I{ROOT / 'native'}"]
        subprocess.run([compiler, *FLAGS, *MARCH[cpu], *includes, "-c", str(path), "-o", objects[-1]], check=True)
    library = folder / "libsis.so"
    shared = ["-shared-libasan"] if "clang" in compiler else []
    command = [compiler, "-shared", "-fsanitize=address,undefined", *shared, *objects, "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def runtime(compiler: str) -> str:
    """Where the compiler keeps its address sanitizer."""
    name = "libclang_rt.asan-x86_64.so" if "clang" in compiler else "libasan.so"
    found = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def main() -> int:
    compiler = os.environ.get("CC", "gcc")
    with tempfile.TemporaryDirectory(prefix="sis-sanitize-") as folder:
        library = build(Path(folder), compiler)
        env = os.environ | {
            "SIS_LIBRARY": str(library),
            "LD_PRELOAD": runtime(compiler),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        files = [] if any(argument.endswith(".py") for argument in sys.argv[1:]) else TESTS
        command = [sys.executable, "-m", "pytest", "-q", *files, *sys.argv[1:]]
        return subprocess.run(command, env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
