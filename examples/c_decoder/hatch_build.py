"""Compiles pot4.c with the zig compiler, a build requirement from the package index: no machine needs a C compiler."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = Path(self.root, "sis_pot4", "libpot4.so")
        cpu = os.environ.get("POT4_CPU", "baseline")  # native: twice as fast, and for processors like this one only
        zig = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O3", f"-mcpu={cpu}"]
        subprocess.run([*zig, "-o", str(library), str(Path(self.root, "pot4.c"))], check=True)
        build_data["artifacts"].append("sis_pot4/libpot4.so")  # part of the wheel, though git ignores it
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
