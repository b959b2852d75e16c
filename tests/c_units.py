"""Units of the engine in C, built alone, so that they can be called from tests."""

from __future__ import annotations

import ctypes
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
FLAGS = ["-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
INCLUDES = [f"-I{ROOT / 'sis_core' / 'include'}", f"-I{NATIVE}"]


def built(folder: Path, *sources: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """A library of these ``sources`` for this machine, in ``folder``; by ziglang, which must be here."""
    build = runpy.run_path(str(NATIVE / "zig.py"))
    triple, made = build["TARGETS"][build["this_machine"]()][0], folder / "units.so"
    build["zig"](triple, *FLAGS, *INCLUDES, *flags, *map(str, sources), "-o", str(made), scratch=str(folder))
    return ctypes.CDLL(str(made))
