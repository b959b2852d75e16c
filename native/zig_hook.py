"""Hatch build hook shared by the native plugins: compiles C with the ziglang wheel; no machine needs a compiler.

SIS_TARGET (one of TARGETS) builds for another machine; unset, the library is for this one. A machine that a plugin has
no code for gets the plugin without a library: it says so and is never chosen.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

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


class ZigHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """Compiles the units that the plugin's ``pyproject.toml`` lists and puts the library into the wheel."""

    PLUGIN_NAME = "custom"
    scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("SIS_TARGET")
        name = wanted or this_machine()
        if wanted and name not in TARGETS:
            raise RuntimeError(f"no target {name!r}; SIS_TARGET is one of {', '.join(TARGETS)}")
        if name not in TARGETS or not name.endswith("-" + self.config["arch"]):
            return
        triple, tag, suffix = TARGETS[name]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"
        self.scratch = tempfile.TemporaryDirectory(prefix="sis-zig-")
        output = self.config["output"] + suffix
        built = self.compile(triple, Path(self.scratch.name), Path(output).name)
        if version == "editable":  # pip install -e; uv installs these plugins non-editable
            place = Path(self.root, output)
            fresh = place.with_name(place.name + ".new")
            fresh.write_bytes(built.read_bytes())
            os.replace(fresh, place)  # a process that has the old library open keeps it
        else:
            build_data["force_include"][str(built)] = output

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.scratch is not None:
            self.scratch.cleanup()

    def compile(self, triple: str, scratch: Path, name: str) -> Path:
        """Compile every unit and link the library."""
        root = Path(self.root)
        shared = root if (root / "native").is_dir() else root.parents[1]  # an sdist, else the checkout
        include = next(p for p in (root / "include", shared / "sis_core" / "include") if p.is_dir())
        objects = []
        for n, (source, cpu) in enumerate(self.config["units"]):
            path = (shared if source.startswith("native/") else root) / source
            objects.append(str(scratch / f"{n}.o"))
            includes = [f"-I{include}", f"-I{shared / 'native'}"]
            self.zig(triple, *COMPILE, f"-mcpu={cpu}", *includes, "-c", str(path), "-o", objects[-1])
        libraries = LINK_WINDOWS if "windows" in triple else []
        self.zig(triple, *LINK, *objects, *libraries, "-o", str(scratch / name))
        return scratch / name

    def zig(self, triple: str, *args: str) -> None:
        """Run ``zig cc``; RuntimeError with its output when it fails."""
        assert self.scratch is not None
        env = dict(os.environ)
        if not {"HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "ZIG_GLOBAL_CACHE_DIR"} & env.keys():
            env["ZIG_GLOBAL_CACHE_DIR"] = str(Path(self.scratch.name, "cache"))  # zig insists on one
        command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, *args]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
