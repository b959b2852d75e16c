"""The version that all packages share: ``python release/version.py`` prints it, with a new one writes it everywhere.

A package says its own version and, as ``~=X.Y.0``, which versions of the others it goes with.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORM = re.compile(r"\d+\.\d+\.\d+")  # no release candidates: ~= would not take them
OWN = re.compile(r'(?m)^version = "(.*)"$')
OTHERS = re.compile(r"(\bsis-\w+~=)[\d.]+")


def projects(root: Path) -> list[Path]:
    """The ``pyproject.toml`` of every package and example: those that have a version, and those that ask for one."""
    return [root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml")),
            *sorted(root.glob("examples/*/pyproject.toml"))]  # fmt: skip


def packages(root: Path) -> list[Path]:
    """Folders of the packages that are released: the core's first."""
    return [path.parent for path in projects(root) if path.parent.parent.name != "examples"]


def read(root: Path) -> str:
    """The core's version, which is that of all."""
    return str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def write(root: Path, version: str) -> list[Path]:
    """Write a version everywhere; the files that changed. ValueError where it has another form than X.Y.Z."""
    if not FORM.fullmatch(version):
        raise ValueError(f"{version} is not of the form 1.2.3")
    major, minor, _ = version.split(".", 2)
    changed = []
    for path in projects(root):
        text = path.read_text("utf-8")
        new = OTHERS.sub(rf"\g<1>{major}.{minor}.0", text)
        if path.parent in packages(root):
            new = OWN.sub(f'version = "{version}"', new, count=1)
        if new != text:
            path.write_text(new, "utf-8", newline="\n")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(read(ROOT))
    else:
        try:
            for changed in write(ROOT, sys.argv[1]):
                print(changed.relative_to(ROOT))
        except ValueError as error:
            sys.exit(str(error))
