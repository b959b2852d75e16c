"""docs/contract.md is the reference of what lies flat in the core, and nothing else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FLAT = {
    "errors", "arrays", "hookspecs", "registry", "source", "quant", "architecture", "block", "experts", "parts",
    "expert_parts", "tensors", "metadata", "rope", "tokenizer", "sampler", "backend", "step", "chat", "cluster",
    "drafter", "eviction", "layout", "fields", "transform", "unpacked", "sides", "closing",
    "guarded",
}  # fmt: skip
FOLDERS = {
    "gguf_file", "cache", "backends", "discovery", "machine", "loading", "stages", "texts", "workbench", "testing",
    "cli", "include",
}  # fmt: skip


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_contract", ROOT / "docs" / "make_contract.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_contract_lies_flat_and_nothing_else() -> None:
    core = ROOT / "sis_core"
    assert {p.stem for p in core.glob("*.py")} - {"__init__", "__main__"} == FLAT
    assert {p.name for p in core.iterdir() if p.is_dir() and p.name != "__pycache__"} == FOLDERS


def test_the_page_has_every_flat_module() -> None:
    page = (ROOT / "docs" / "contract.md").read_text("utf-8")
    assert set(re.findall(r"^## sis_core\.(\w+)$", page, re.M)) == FLAT


def test_types_have_names_on_the_page() -> None:
    page = (ROOT / "docs" / "contract.md").read_text("utf-8")
    assert "### `Runs = Bits | Sequence[Bits]`\n\nOne run, or several that follow each other.\n" in page
    assert {"Axis", "Kind", "Activation", "F32", "I8"} <= set(re.findall(r"^### `(\w+) = ", page, re.M))
    assert "### `T = " not in page
    assert "### `PLAIN = " not in page


def test_the_page_is_as_new_as_the_code(maker: ModuleType) -> None:
    assert (ROOT / "docs" / "contract.md").read_text("utf-8") == maker.page(), "run docs/make_contract.py"


def test_at_most_three_files_of_the_core_are_long() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in ROOT.glob("sis_core/**/*.py")}
    long = {name: n for name, n in lengths.items() if n > 350}
    assert len(long) <= 3, long
