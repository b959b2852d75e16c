"""Wheels and sdists of every part for every target, on one machine: ``uv run native/wheels.py [folder]``."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = {
    "sis-neon": ["linux-aarch64", "macos-aarch64"],
    "sis-x86": ["linux-x86_64", "macos-x86_64", "windows-x86_64"],
}


def build(out: str, package: str, *flags: str, **env: str) -> None:
    """One ``uv build``."""
    command = ["uv", "build", "-q", "--package", package, "-o", out, *flags]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | env)


def main() -> None:
    out = str(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve())
    for path in [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]:
        package = tomllib.loads(path.read_text("utf-8"))["project"]["name"]
        if package in NATIVE:
            build(out, package, "--sdist")
            for target in NATIVE[package]:
                build(out, package, "--wheel", SIS_TARGET=target)
        else:
            build(out, package)


if __name__ == "__main__":
    main()
