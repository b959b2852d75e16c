"""The documentation is held against the code: signatures, examples, links."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from sis_core import hookspecs
from sis_core.registry import Registry
from sis_core.sampler import Sampler
from sis_core.testing import check_quant_format, check_sampler

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("sis_register_"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text("utf-8"))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    function = getattr(hookspecs, name)
    signature = f"def {name}{inspect.signature(function)}".replace("'", "")
    page = (ROOT / "docs" / "hooks.md").read_text("utf-8")
    assert f"## {name}\n\n```python\n{signature}\n```" in page


def test_no_hook_is_documented_that_is_not_there() -> None:
    assert re.findall(r"^## (\w+)$", (ROOT / "docs" / "hooks.md").read_text("utf-8"), re.MULTILINE) == [
        name for name in vars(hookspecs) if name in HOOKS
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_are_python(page: Path) -> None:
    for block in blocks(page):
        if "->" not in block or ":" in block:  # a bare signature is not a program
            ast.parse(
                block.replace("Iterable[", "list[") if not block.startswith("def sis_") else block.rstrip() + ": ..."
            )


PLUGINS = [(page, i, block) for page in PAGES for i, block in enumerate(blocks(page)) if "@hookimpl" in block]


@pytest.mark.parametrize(("page", "i", "block"), PLUGINS, ids=[f"{page.stem}-{i}" for page, i, _ in PLUGINS])
def test_example_plugins_load_and_keep_the_contract(page: Path, i: int, block: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(block)
    registry = Registry.load(files=[path])
    registry.load_all()
    mine = next(plugin for plugin in registry.plugins if plugin.name == "mine")
    assert mine.error is None
    assert mine.offers
    for entry in registry.entries("quant_formats"):
        if entry.plugin == "mine":
            check_quant_format(entry.record)


def test_the_tutorials_first_plugin_has_eight_lines_and_the_fault_it_admits(tmp_path: Path) -> None:
    first = blocks(ROOT / "docs" / "tutorial.md")[0]
    assert sum(bool(line.strip()) for line in first.splitlines()) == 8
    path = tmp_path / "shy.py"
    path.write_text(first)
    shy: type[Sampler] = Registry.load(files=[path]).get("samplers", "shy")
    with pytest.raises(AssertionError, match="every token"):
        check_sampler(shy)


def test_the_entry_point_shown_is_toml() -> None:
    for page in PAGES:
        for block in re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            tomllib.loads(block)


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for path in sorted((ROOT / "sis_core").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(ROOT)))
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                overload = any(
                    isinstance(d, ast.Name) and d.id in ("overload", "hookimpl") for d in node.decorator_list
                )
                if ast.get_docstring(node) is None and not overload:
                    missing.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert missing == []


def test_the_page_of_native_code_names_every_file() -> None:
    folder = ROOT / "native"
    named = set(re.findall(r"`([\w.]+)`", (folder / "README.md").read_text("utf-8").partition("\n## ")[0]))
    assert {path.name for path in folder.iterdir() if path.is_file()} - {"README.md"} <= named
