"""Compiles csrc/ with the zig compiler, each instruction set for itself; no machine needs a C compiler."""

import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=on", "-Wall", "-Wextra", "-Werror"]
X86 = platform.machine() in ("x86_64", "AMD64")
BASE = "x86_64" if X86 else "baseline"
UNITS = {"int4.c": BASE, "portable.c": BASE}  # file: the processor that it may ask for, as zig names it
if X86:
    UNITS |= {"avx2.c": "x86_64_v3", "avx512_vnni.c": "x86_64_v4+avx512vnni"}
    UNITS |= {"amx.c": "x86_64_v4+amx_tile+amx_int8"}


class Compile(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root, zig = Path(self.root), [sys.executable, "-m", "ziglang", "cc"]
        with tempfile.TemporaryDirectory() as scratch:
            objects = []
            for name, cpu in UNITS.items():
                objects.append(str(Path(scratch, name + ".o")))
                source = root / "csrc" / name
                command = [*zig, *FLAGS, f"-mcpu={cpu}", f"-I{root / 'csrc'}", "-c", str(source), "-o", objects[-1]]
                subprocess.run(command, check=True)
            library = root / "sis_int4" / "libint4.so"
            subprocess.run([*zig, "-shared", "-s", *objects, "-o", str(library)], check=True)
        build_data["artifacts"].append("sis_int4/libint4.so")  # part of the wheel, though git ignores it
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
