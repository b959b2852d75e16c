"""Wheels and sdists of every package for every machine, built on one and opened: ``uv run release/wheels.py [folder]``.

Nothing is published. The exit code is 1 when a wheel lacks something, or what they install does not run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))
import contents
import trial
import version
from zig import TARGETS, hook_config, this_machine

ROOT = version.ROOT
SYSTEMS = {"aarch64": ("linux", "macos"), "x86_64": ("linux", "macos", "windows")}  # Windows on ARM is never tried


def native_targets(package: Path) -> list[str]:
    """The machines that a package has code for; none where it is all Python."""
    if not (package / "hatch_build.py").exists():
        return []
    arch = hook_config(package)["arch"]
    return [f"{system}-{arch}" for system in SYSTEMS[arch]]


def wheels_of(package: Path) -> dict[str, str | None]:
    """The names of a package's wheels, each with the target of the library in it."""
    project = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}-py3-none"
    targets = native_targets(package)
    return {f"{stem}-{TARGETS[target][1]}.whl": target for target in targets} or {f"{stem}-any.whl": None}


def build(package: Path, out: Path) -> None:
    """One sdist, and a wheel for each machine."""
    targets = native_targets(package)
    if not targets:
        build_one(package, out)  # the wheel is built from the sdist
        return
    build_one(package, out, "--sdist")
    for target in targets:
        build_one(package, out, "--wheel", SIS_TARGET=target)


def build_one(package: Path, out: Path, *flags: str, **env: str) -> None:
    """One ``uv build``."""
    command = ["uv", "build", "--quiet", "--out-dir", str(out), *flags, str(package)]
    subprocess.run(command, check=True, env=os.environ | env)


def inert(package: Path) -> list[str]:
    """What is wrong with what a machine that the package has no code for builds by itself."""
    if this_machine() in native_targets(package):
        return []
    with tempfile.TemporaryDirectory(prefix="sis-inert-") as folder:
        build_one(package, Path(folder), "--wheel")
        (wheel,) = Path(folder).glob("*.whl")
    return [f"without SIS_TARGET {package.name} makes {wheel.name}"] if wheel.name.endswith("-any.whl") else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist", help="an empty one (default: dist)")
    out: Path = parser.parse_args().folder.resolve()
    if out.exists() and any(out.iterdir()):
        print(f"{out} is not empty: name another folder, so that old wheels are not taken for new ones")
        return 2
    packages = version.packages(ROOT)
    for number, package in enumerate(packages, 1):
        print(f"{number} of {len(packages)}: {package.name}", flush=True)
        build(package, out)
    faults = contents.faults(out, {name: target for package in packages for name, target in wheels_of(package).items()})
    faults += [fault for package in packages if native_targets(package) for fault in inert(package)]
    faults = faults or trial.faults(out)
    print("\n".join(faults) or f"{len(list(out.glob('*.whl')))} wheels in {out}: opened, installed and tried")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
