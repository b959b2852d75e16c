"""The repository as a set of distributions: one version, every part listed everywhere it must be, nothing foreign."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))


CORE = project(ROOT)
NAMES = {folder.name: project(folder)["project"]["name"] for folder in PLUGINS}


FOREIGN = {"llm_sis"}
"""Plugins of other programs, which are called as those want it."""


def package(folder: Path) -> str:
    return folder.name if folder.name in FOREIGN else f"sis_{folder.name}"


def tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a git checkout")
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_is_a_whole_distribution(folder: Path) -> None:
    data = project(folder)
    assert data["project"]["version"] == CORE["project"]["version"]
    if folder.name in FOREIGN:
        assert data["project"]["name"] == folder.name.replace("_", "-")
    else:
        assert data["project"]["name"] == f"sis-{folder.name}"
        assert folder.name in data["project"]["entry-points"]["sis"]
    assert (folder / package(folder) / "py.typed").exists()
    assert len((folder / "README.md").read_text("utf-8").splitlines()) > 3
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert list(folder.glob("tests/test_*.py")), "`pytest plugins/NAME` tests the plugin"
    major_minor = ".".join(CORE["project"]["version"].split(".")[:2])
    assert f"sis-core~={major_minor}.0" in data["project"]["dependencies"]


def test_every_plugin_is_listed_everywhere() -> None:
    required = {
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")
    }
    assert {line.partition(";")[0].strip() for line in required} == {"."} | {f"./plugins/{name}" for name in NAMES}
    dev = {str(line).partition(";")[0].strip() for line in CORE["dependency-groups"]["dev"]}
    assert set(NAMES.values()) <= dev
    assert set(NAMES.values()) | {"sis-core"} == set(CORE["tool"]["uv"]["sources"])
    assert {package(folder) for folder in PLUGINS} | {"sis_core"} == set(CORE["tool"]["mypy"]["packages"])


def test_nothing_tracked_names_a_registry_or_a_machine() -> None:
    forbidden = re.compile(
        "|".join([r"py" + r"pi\.org", r"pythonhost" + r"ed\.", r"/wo" + r"rk/", r"registry\.npm" + r"js"])
    )
    found = []
    for name in tracked():
        assert name != "uv.lock", "uv.lock holds addresses of a registry"
        data = (ROOT / name).read_bytes()
        if b"\0" not in data[:4096] and (match := forbidden.search(data.decode("utf-8", "replace"))):
            found.append(f"{name}: {match.group()}")
    assert found == []


def test_model_weights_are_only_our_own() -> None:
    weights = [name for name in tracked() if name.endswith((".gguf", ".safetensors", ".bin", ".pt"))]
    assert weights == ["plugins/tiny/sis_tiny/tiny.gguf"]


def test_what_is_marked_slow_is_there() -> None:
    table = (ROOT / "conftest.py").read_text("utf-8").partition("SLOW = (")[2].partition("\n)")[0]
    listed = set(re.findall(r'"(test_\w+)"', table))
    files = {path.stem for pattern in ("tests/test_*.py", "plugins/*/tests/test_*.py") for path in ROOT.glob(pattern)}
    assert listed
    assert listed <= files
