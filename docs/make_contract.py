"""Writes contract.md, the reference of all that a plugin may import, from the docstrings of `sis_core`'s flat modules.

    uv run python docs/make_contract.py

`tests/test_contract_page.py` fails while the page is older than the code.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).parents[1] / "sis_core"
PAGE = Path(__file__).with_name("contract.md")
ORDER = [
    "errors",
    "hookspecs",
    "registry",
    "source",
    "quant",
    "sides",
    "layout",
    "unpacked",
    "guarded",
    "fields",
    "transform",
    "tensors",
    "metadata",
    "rope",
    "block",
    "experts",
    "parts",
    "architecture",
    "expert_parts",
    "tokenizer",
    "sampler",
    "drafter",
    "eviction",
    "chat",
    "step",
    "backend",
    "cluster",
    "closing",
    "arrays",
]
INTRO = """\
# The contract

What a plugin may import: the modules that lie flat in `sis_core/`, and `sis_core.testing`, whose checks every plugin
can run. What lies in the other folders is how it is done, and changes without notice. The hooks that hand these records
to sis are on [a page of their own](hooks.md).

This page is made from the code's own docstrings by `docs/make_contract.py`.
"""


def modules() -> list[str]:
    """The flat modules in the order of the page; AssertionError when `ORDER` does not have exactly them."""
    flat = {path.stem for path in CORE.glob("*.py") if not path.stem.startswith("__")}
    assert flat == set(ORDER), f"ORDER and the flat modules differ in {sorted(flat ^ set(ORDER))}"
    return ORDER


def page() -> str:
    """The whole page."""
    return INTRO + "".join(f"\n{part}" for name in modules() for part in _module(name))


def _module(name: str) -> Iterator[str]:
    tree = ast.parse((CORE / f"{name}.py").read_text("utf-8"))
    yield f"## sis_core.{name}\n\n{_doc(tree)}"
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        match node:
            case (
                ast.AnnAssign(target=ast.Name(name), annotation=ast.Name("TypeAlias"), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(name)], value=ast.Subscript() | ast.BinOp() as value)
            ) if _is_a_type(name):
                yield f"### `{name} = {ast.unparse(value)}`\n{_text_behind(after)}"
            case ast.ClassDef() if not node.name.startswith("_"):
                yield from _class(node)
            case ast.FunctionDef() if not node.name.startswith("_"):
                yield f"### `{_signature(node)}`\n\n{_doc(node)}"


def _is_a_type(name: str) -> bool:
    """Whether a name is written as those of types are: constants are in capitals alone."""
    return name[0].isupper() and (any(map(str.islower, name)) or name[1:].isdigit())


def _text_behind(node: ast.stmt | None) -> str:
    """The string that says what the name before it is; empty where none does."""
    match node:
        case ast.Expr(ast.Constant(str(text))):
            return "\n".join(["", *_marked_up(inspect.cleandoc(text).splitlines()), ""])
    return ""


def _class(node: ast.ClassDef) -> Iterator[str]:
    bases = [ast.unparse(base) for base in node.bases]
    yield f"### class `{node.name}{'(' + ', '.join(bases) + ')' if bases else ''}`\n\n{_doc(node)}"
    fields = [
        f"    {ast.unparse(part)}"
        for part in node.body
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_")
    ]
    if fields:
        yield "\n".join(["```text", *(line[4:] for line in fields), "```"]) + "\n"
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            doc = _doc(part).strip()
            is_property = any(ast.unparse(d) in ("property", "cached_property") for d in part.decorator_list)
            shown = f"{part.name} -> {ast.unparse(part.returns)}" if is_property and part.returns else _signature(part)
            yield f"- `{shown}`" + (f"\n\n{textwrap.indent(doc, '  ')}\n" if doc else "\n")


def _signature(node: ast.FunctionDef) -> str:
    arguments = ast.unparse(node.args)
    for receiver in ("self", "cls"):
        arguments = arguments.removeprefix(f"{receiver}, ").removeprefix(receiver)
    return f"{node.name}({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def _doc(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """A docstring as Markdown: sections such as Attributes become lists."""
    text = "\n".join(_marked_up((ast.get_docstring(node) or "").splitlines()))
    return f"{text}\n" if text else ""


def _marked_up(lines: list[str]) -> list[str]:
    shown: list[str] = []
    section = False
    for line in lines:
        if line in ("Attributes:", "Args:", "Raises:", "Returns:"):
            section = True
            shown += [f"*{line.rstrip(':')}*", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            term, colon, rest = line.strip().partition(": ")
            shown.append(f"- `{term}`: {rest}" if colon else f"- {line.strip()}")
        elif section and line.startswith("     "):
            shown.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            shown.append(line)
    return [line.replace("``", "`") for line in shown]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
