"""The tree of a template, rewritten so that everything that costs something goes through the sandbox.

Jinja's sandbox sees calls, attributes and operators. Loops, slices, comparisons, literals and ``~`` it compiles to
plain Python: here each becomes a filter whose name cannot be spelt in a template.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.visitor import NodeTransformer

COUNTED, WEIGHED, MADE, JOINED, SLICED = " counted", " weighed", " made", " joined", " sliced"

ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock,
    nodes.FilterBlock, nodes.With, nodes.Scope, nodes.Assign, nodes.AssignBlock, nodes.NSRef, nodes.Break,
    nodes.Continue, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.BinExpr, nodes.UnaryExpr,
)  # fmt: skip
TAGS: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
}


def check(tree: nodes.Template, max_depth: int) -> None:
    """TemplateSyntaxError for a node that no chat template needs, or a tree deeper than ``max_depth``."""
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, ALLOWED):
            tag = TAGS.get(type(node), type(node).__name__)
            raise TemplateSyntaxError(f"the tag {tag!r} is not allowed in a chat template", node.lineno)
        if depth > max_depth:
            raise TemplateSyntaxError(f"it is nested more than {max_depth} deep", node.lineno)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())


def rewrite(tree: nodes.Template) -> nodes.Template:
    """The tree with its loops, comparisons, slices, literals and concatenations going through filters."""
    rewritten = _Rewriter().visit(tree)
    assert isinstance(rewritten, nodes.Template)
    return rewritten


def _filter(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class _Rewriter(NodeTransformer):
    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)  # so that `Sandbox.print` counts it

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filter(COUNTED, node.iter)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(SLICED, node.node, *(part or nodes.Const(None, lineno=node.lineno) for part in parts))

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(JOINED, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(MADE, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(MADE, node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _weighed(pair.key)
        return _filter(MADE, node)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(WEIGHED, node)
