"""Every golden of a family is held by the tests of the package that has the family: see `family_suite.FamilySuite`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from family_suite import FOLDER, FamilyKit, FamilySuite, content, installed, write_golden

PLUGINS = Path(__file__).parent.parent / "plugins"


def suites(plugin: str) -> list[type[FamilyKit]]:
    """The suites in the package's own tests."""
    path = PLUGINS / plugin / "tests" / f"test_{plugin}.py"
    spec = importlib.util.spec_from_file_location(f"suites_of_{plugin}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, FamilyKit)]
    return [each for each in found if each not in (FamilyKit, FamilySuite)]


def test_every_family_is_tested_by_its_package(tmp_path: Path) -> None:
    owners = {name: entry.plugin for entry in installed().entries("architectures") for name in entry.names}
    held = {plugin: suites(plugin) for plugin in set(owners.values())}
    assert all(held.values())
    claimed = {(plugin, name) for plugin, kits in held.items() for kit in kits for name in getattr(kit, "goldens", ())}
    goldens = [path.name.removesuffix(".gguf.xz") for path in FOLDER.glob("*.gguf.xz")]
    wanted = {(owners[content(write_golden(n, tmp_path))[0]["general.architecture"]], n) for n in goldens}
    assert claimed == wanted
