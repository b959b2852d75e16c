"""Hatch build hook shared by the native plugins.

SIS_TARGET (one of TARGETS) builds for another machine; unset, the library is for this one. A machine that a plugin has
no code for gets the plugin without a library: it says so and is never chosen. That wheel's tag names this machine, so
that it is never taken for one that serves every machine.
"""

from __future__ import annotations

import os
import re
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from zig import TARGETS, build, this_machine


class ZigHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """Compiles the units that the plugin's ``pyproject.toml`` lists and puts the library into the wheel."""

    PLUGIN_NAME = "custom"
    scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("SIS_TARGET")
        name = wanted or this_machine()
        if wanted and name not in TARGETS:
            raise RuntimeError(f"no target {name!r}; SIS_TARGET is one of {', '.join(TARGETS)}")
        build_data["pure_python"] = False
        if name not in TARGETS or not name.endswith("-" + self.config["arch"]):
            build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
            return
        _, tag, suffix = TARGETS[name]
        build_data["tag"] = f"py3-none-{tag}"
        self.scratch = tempfile.TemporaryDirectory(prefix="sis-zig-")
        output = self.config["output"] + suffix
        built = Path(self.scratch.name, Path(output).name)
        build(Path(self.root), name, built)
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
