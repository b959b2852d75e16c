"""Imports point one way: from the program down to the errors, and from plugins to the core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [  # a module may import only from the rows above its own, or from its own package
    ["errors"],
    ["arrays", "closing", "machine", "discovery"],
    ["fields", "transform", "unpacked", "sides"],
    ["layout"],
    ["guarded"],
    ["gguf_file", "quant", "tokenizer"],
    ["step", "metadata", "sampler", "source", "chat", "drafter", "eviction", "cluster"],
    ["block"],
    ["experts"],
    ["backend", "tensors"],
    ["rope", "parts"],
    ["architecture"],
    ["hookspecs", "expert_parts"],
    ["cache"],
    ["backends"],
    ["registry"],
    ["loading"],
    ["stages"],
    ["texts"],
    ["testing", "workbench"],
    ["cli", "__init__"],
    ["__main__"],
]
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions; not what only a type checker sees."""
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(child for part in node.body for child in ast.walk(part))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sis_core").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_imports_point_down(path: Path) -> None:
    module = path.relative_to(ROOT / "sis_core").with_suffix("").parts[0]
    for name in imports(path):
        if name.startswith("sis_"):
            package, _, target = name.partition(".")
            assert package == "sis_core", f"the core imports {name}"
            target = target.partition(".")[0]
            if target not in RANK or target == module:
                continue  # a name from sis_core/__init__.py, or the same package
            assert RANK[target] < RANK[module], f"{module} imports {target}, which lies above it"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "plugins").rglob("sis_*/**/*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_plugins_do_not_import_each_other(path: Path) -> None:
    own = next(part for part in path.parts if part.startswith("sis_"))
    foreign = {name for name in imports(path) if name.startswith("sis_")}
    assert {name.partition(".")[0] for name in foreign} <= {own, "sis_core"}


def test_every_module_has_a_place() -> None:
    modules = {p.stem for p in (ROOT / "sis_core").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert modules - {"__pycache__"} == set(RANK)
