"""Arguments that are not written as JSON, made into it by the tool's schema."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from sis_chat.errors import ReplyError

MAX_TEXT = 1024 * 1024
MAX_DEPTH = 50


def as_json(value: Any) -> str:
    """JSON text of a value."""
    return json.dumps(value, ensure_ascii=False)


def types_of(schema: Any) -> frozenset[str]:
    """The types that a schema allows, as far as it says so itself; empty where it does not."""
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list | tuple):
        return frozenset(t for t in named if isinstance(t, str))
    found: frozenset[str] = frozenset()
    for branch in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        found |= types_of(branch)
    if not found and "enum" in schema and all(isinstance(item, str) for item in schema["enum"]):
        return frozenset({"string"})
    return found


def is_text(schema: Any) -> bool:
    """Whether a value by this schema is a text, whatever it looks like."""
    return types_of(schema) == {"string"}


def typed(text: str, schema: Any) -> Any:
    """The value that ``text`` stands for: by the schema a text, or what JSON or Python make of it."""
    types = types_of(schema)
    if types == {"string"}:
        return text
    value = _literal(text.strip())
    if value is _NOTHING or (types and not _fits(value, types)):
        return text
    return value


_NOTHING: Any = object()


def _literal(text: str) -> Any:
    if len(text) > MAX_TEXT:
        return _NOTHING
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
        json.dumps(value)  # sets, bytes and complex numbers are none of JSON's
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return _NOTHING
    return value


_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list,), "object": (dict,),
}  # fmt: skip


def _fits(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    return any(isinstance(value, _KINDS.get(name, ())) for name in types)


def properties_of(schema: Any) -> Mapping[str, Any]:
    """The schemas of an object's properties."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def elements(text: str, mark: str, schema: Any) -> Any:
    """A value in nested tags, each after ``mark``: items of a list are called ``item``, others are keys."""
    return _elements(text, mark, schema, 0)


def _elements(text: str, mark: str, schema: Any, depth: int) -> Any:
    if not text.lstrip().startswith(f"{mark}<") or depth > MAX_DEPTH:
        return typed(text, schema)
    pairs: list[tuple[str, str]] = []
    at = 0
    pattern = re.compile(re.escape(mark) + r"<([^/<>][^<>]*)>")
    while match := pattern.search(text, at):
        close = f"{mark}</{match[1]}>"
        end = text.find(close, match.end())
        if end < 0:
            return typed(text, schema)
        pairs.append((match[1], text[match.end() : end]))
        at = end + len(close)
    if pairs and all(key == "item" for key, _ in pairs) and "object" not in types_of(schema):
        items = schema.get("items") if isinstance(schema, Mapping) else None
        return [_elements(inner, mark, items, depth + 1) for _, inner in pairs]
    known = properties_of(schema)
    return {key: _elements(inner, mark, known.get(key), depth + 1) for key, inner in pairs}


def python_arguments(text: str) -> dict[str, Any]:
    """Keyword arguments of a call in Python, literals only. ReplyError for anything else."""
    try:
        return _keywords(text)
    except ReplyError:
        if "\n" not in text:
            raise
        return _keywords(text.replace("\n", "\\n"))  # models write new lines into texts as they are


def _keywords(text: str) -> dict[str, Any]:
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not keyword arguments")
        arguments = {str(keyword.arg): ast.literal_eval(_json_names(keyword.value)) for keyword in call.keywords}
        json.dumps(arguments)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ReplyError(f"a call's arguments are not literals: {error}", where="reply") from None
    return arguments


class _Names(ast.NodeTransformer):
    """JSON's names for constants, which models mix with Python's."""

    KNOWN: Mapping[str, Any] = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.KNOWN:
            return ast.copy_location(ast.Constant(self.KNOWN[node.id]), node)
        return node


def _json_names(node: ast.expr) -> ast.expr:
    changed: ast.expr = _Names().visit(node)
    return changed


def braces(text: str, quote: str) -> Any:
    """A value in Gemma's notation: JSON with bare keys, and texts between ``quote``. ReplyError for anything else."""
    value, at = _braces(text, 0, quote, 0)
    if text[at:].strip():
        raise ReplyError("a call's arguments go on after their end", where="reply")
    return value


def _braces(text: str, at: int, quote: str, depth: int) -> tuple[Any, int]:
    at = _space(text, at)
    if depth > MAX_DEPTH:
        raise ReplyError(f"a call's arguments are nested more than {MAX_DEPTH} deep", where="reply")
    if text.startswith(quote, at):
        end = text.find(quote, at + len(quote))
        if end < 0:
            raise ReplyError("a text in a call's arguments has no end", where="reply")
        return text[at + len(quote) : end], end + len(quote)
    if text[at : at + 1] in ("{", "["):
        return _container(text, at, quote, depth)
    match = re.compile(r"[^,\]}]*").match(text, at)
    assert match is not None
    value = _literal(match[0].strip())
    return (match[0].strip() if value is _NOTHING else value), match.end()


def _container(text: str, at: int, quote: str, depth: int) -> tuple[Any, int]:
    closing = "}" if text[at] == "{" else "]"
    items: list[Any] = []
    keys: list[str] = []
    at = _space(text, at + 1)
    while at < len(text) and text[at] != closing:
        if closing == "}":
            key, at = _key(text, at, quote)
            keys.append(key)
        value, at = _braces(text, at, quote, depth + 1)
        items.append(value)
        at = _space(text, at)
        if text[at : at + 1] == ",":
            at = _space(text, at + 1)
    if at >= len(text):
        raise ReplyError("a call's arguments have no end", where="reply")
    return (dict(zip(keys, items, strict=True)) if closing == "}" else items), at + 1


def _key(text: str, at: int, quote: str) -> tuple[str, int]:
    if text.startswith(quote, at):
        key, at = _braces(text, at, quote, 0)
        at = _space(text, at)
        if text[at : at + 1] == ":":
            return str(key), at + 1
    colon = text.find(":", at)
    if colon < 0:
        raise ReplyError("a call's arguments have a key without a value", where="reply")
    return text[at:colon].strip().strip('"'), colon + 1


def _space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
