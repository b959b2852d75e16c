"""Values by a JSON schema as a grammar of the two notations that are no JSON: Python's literals and Gemma's braces."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from sis_chat.errors import ReplyError
from sis_chat.replies.values import as_json, properties_of, types_of

INTEGER, NUMBER = r"/-?(0|[1-9][0-9]{0,17})/", r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"
PYTHON_TEXT = r"""(/"([^"\\\x00-\x1f]|\\["'\\nrt])*"/ | /'([^'\\\x00-\x1f]|\\["'\\nrt])*'/)"""
TYPES = ("string", "number", "boolean", "null", "array", "object")
#: Keywords that are heeded, and those that ask for nothing.
HEEDED = {"type", "enum", "const", "properties", "required", "items", "anyOf", "oneOf", "additionalProperties"}
REMARKS = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$comment",
           "format"}  # fmt: skip
MAX_DEPTH = 8  # of a value that the schema says nothing about
BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@frozen
class Notation:
    """One of the two, with what it needs of the grammar that it becomes part of.

    Attributes:
        rule: makes a rule of a body, and gives its name.
        literal: a text, with control tokens as such.
        until: any text up to a closing one.
        quote: what stands around a text, for braces; empty for Python.
    """

    rule: Callable[[str, str], str]
    literal: Callable[[str], str]
    until: Callable[[str], str]
    quote: str = ""

    def members(self, schema: Any, written: Callable[[str], str]) -> str:
        """An object's members in the schema's order, between commas; ReplyError for a keyword that is not heeded.

        Args:
            written: a key and what comes before its value.
        """
        _check(schema)
        return self._members(schema, written, 0)

    def _members(self, schema: Any, written: Callable[[str], str], depth: int) -> str:
        required = schema.get("required", ()) if isinstance(schema, Mapping) else ()
        first: str | None = None  # nothing was written yet
        later = ""
        for key, property in reversed([*properties_of(schema).items()]):
            member = self.rule("member", f"{self.literal(written(key))} {self._value(property, depth + 1)}")
            begun = f"{member} {later}".strip()
            if key in required:
                first, later = begun, f'"," SPACE {begun}'
            else:
                first = begun if first is None else f"({begun} | {self.rule('members', first)})"
                first = first if first != begun or later else f"{begun}?"
                later = f'("," SPACE {member})? {later}'.strip()
            first, later = self.rule("members", first), self.rule("members", later or '""')
        return first or '""'

    def _value(self, schema: Any, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise ReplyError(f"a schema is nested more than {MAX_DEPTH} deep", where="tool choice")
        _check(schema)
        if not isinstance(schema, Mapping):
            schema = {}
        if "const" in schema or "enum" in schema:
            allowed = [schema["const"]] if "const" in schema else schema["enum"]
            return f"({' | '.join(self._spelt(item) for item in allowed)})"
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return f"({' | '.join(self._value(branch, depth + 1) for branch in branches)})"
        kinds = sorted(types_of(schema)) or TYPES
        return self.rule("value", " | ".join(self._of_type(kind, schema, depth) for kind in kinds))

    def _of_type(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "string":
            return f"{self.literal(self.quote)} {self.until(self.quote)}" if self.quote else PYTHON_TEXT
        if kind == "array":
            if depth == MAX_DEPTH:
                return '"[]"'
            item = self._value(schema.get("items", {}), depth + 1)
            return f'"[" SPACE ({item} SPACE ("," SPACE {item} SPACE)*)? "]"'
        if kind == "object":
            return f'"{{" SPACE {self._members(schema, self._key, depth)} SPACE "}}"'
        return {
            "integer": INTEGER,
            "number": NUMBER,
            "boolean": '("true" | "false")' if self.quote else '("True" | "False" | "true" | "false")',
            "null": '"null"' if self.quote else '("None" | "null")',
        }[kind]

    def _key(self, key: str) -> str:
        if not self.quote:
            return f"{as_json(key)}: "
        return f"{key if BARE.fullmatch(key) else self.quote + key + self.quote}:"

    def _spelt(self, value: Any) -> str:
        """A value of an enumeration."""
        if isinstance(value, str):
            quotes: Sequence[str] = (self.quote,) if self.quote else ('"', "'")
            return f"({' | '.join(self.literal(quote + value + quote) for quote in quotes)})"
        if isinstance(value, int | float | bool) or value is None:
            texts = {as_json(value)} if self.quote else {as_json(value), repr(value)}
            return f"({' | '.join(as_json(text) for text in sorted(texts))})"
        raise ReplyError("an enumeration of lists or objects cannot be required in this notation", where="tool choice")


def _check(schema: Any) -> None:
    """ReplyError for a keyword that the notations' grammars do not heed: what is required is never half required."""
    if not isinstance(schema, Mapping):
        return
    unknown = sorted(set(schema) - HEEDED - REMARKS)
    texts = [item for item in [*schema.get("enum", ()), schema.get("const")] if isinstance(item, str)]
    if unknown or any(set(text) & {'"', "'", "\\"} for text in texts):
        what = f"the keyword {unknown[0]!r}" if unknown else "an enumeration of texts with quotes"
        raise ReplyError(
            f"{what} cannot be required of calls in this model's notation",
            where="tool choice",
            fix="let the model choose, or leave it out of the tool's parameters",
        )
