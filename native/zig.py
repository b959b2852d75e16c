"""Compiles a native plugin with the ziglang wheel, for this machine or another; no machine needs a compiler.

python native/zig.py plugins/neon linux-aarch64 build/libsis.so
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TARGETS = {  # name: (zig target, wheel platform tag, library suffix)
    "linux-x86_64": ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", ".so"),
    "linux-aarch64": ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", ".so"),
    "macos-x86_64": ("x86_64-macos.11.0", "macosx_11_0_x86_64", ".dylib"),
    "macos-aarch64": ("aarch64-macos.11.0", "macosx_11_0_arm64", ".dylib"),
    "windows-x86_64": ("x86_64-windows-gnu", "win_amd64", ".dll"),
}
COMPILE = [
    "-std=c11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=on", "-fno-math-errno",
    "-Wall", "-Wextra", "-Werror",
]  # fmt: skip
LINK = ["-shared", "-g0", "-s"]
LINK_WINDOWS = ["-nostdlib", "-lkernel32"]  # zig would build a C library from source each time; see native/windows.c


def this_machine() -> str:
    """This machine's name in TARGETS, if it is there."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    machine = {"AMD64": "x86_64", "ARM64": "aarch64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return f"{system}-{machine}"


def hook_config(root: Path) -> dict[str, Any]:
    """What a plugin's ``pyproject.toml`` says about its library."""
    config = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return dict(config["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"])


def build(root: Path, target: str, library: Path, *flags: str) -> None:
    """Compile the plugin in ``root`` for one of the targets, with further ``flags``, and link its library.

    RuntimeError with the compiler's output when it fails.
    """
    with tempfile.TemporaryDirectory(prefix="sis-zig-") as scratch:
        objects = compile_units(root, TARGETS[target][0], Path(scratch), *flags)
        libraries = LINK_WINDOWS if target.startswith("windows") else []
        zig(TARGETS[target][0], *LINK, *objects, *libraries, "-o", str(library), scratch=scratch)


def compile_units(root: Path, triple: str, scratch: Path, *flags: str) -> list[str]:
    """Compile every unit that the plugin in ``root`` lists, on all processors; the object files."""
    shared = root if (root / "native").is_dir() else root.parents[1]  # an sdist, else the checkout
    include = next(p for p in (root / "include", shared / "sis_core" / "include") if p.is_dir())
    includes = [f"-I{include}", f"-I{shared / 'native'}"]
    units = hook_config(root)["units"]
    objects = [str(scratch / f"{n}.o") for n in range(len(units))]

    def compile_unit(unit: tuple[str, str], compiled: str) -> None:
        source, cpu = unit
        path = (shared if source.startswith("native/") else root) / source
        zig(triple, *COMPILE, *flags, f"-mcpu={cpu}", *includes, "-c", str(path), "-o", compiled, scratch=str(scratch))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_unit, units, objects))
    return objects


def zig(triple: str, *arguments: str, scratch: str) -> None:
    """Run ``zig cc`` for a target in zig's own words."""
    env = dict(os.environ)
    if not {"HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "ZIG_GLOBAL_CACHE_DIR"} & env.keys():
        env["ZIG_GLOBAL_CACHE_DIR"] = str(Path(scratch, "cache"))  # zig insists on one
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    Path(sys.argv[3]).parent.mkdir(parents=True, exist_ok=True)
    build(Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
