"""A reply that must call tools, as a grammar in llguidance's Lark: the model's own format, arguments by schema.

Source of the notation: llguidance, docs/syntax.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sis_chat.errors import ReplyError
from sis_chat.replies.format import Calls, Region, ReplyFormat
from sis_chat.replies.notation import Notation
from sis_chat.replies.values import as_json, is_text, properties_of, types_of
from sis_core.chat import Tool

ANY = "/(?s:.*)/"
SPACE = "/[ \\t\\r\\n]{0,20}/"
ID = r'/"[A-Za-z0-9_-]{1,40}"/'
FIRST_ID = "call00001"
Cut = Callable[[str], Sequence[str | int]]


class CallGrammar:
    """The grammar of replies that call some of the tools.

    Args:
        cut: cuts a text at the names of control tokens: pieces of text, and ids.
        thinking: the template begins a thought, so that its opening tag does not come.
    """

    def __init__(self, format: ReplyFormat, tools: Sequence[Tool], cut: Cut, *, thinking: bool) -> None:
        if format.calls is None:
            raise ReplyError("calls in this format cannot be required", where="tool choice", fix="let the model choose")
        self._format, self._calls, self._cut, self._thinking = format, format.calls, cut, thinking
        self._tools = [tool["function"] for tool in tools]
        self._rules: list[str] = []

    def text(self, *, several: bool) -> str:
        """The grammar: one call, or ``several`` for one or more."""
        start = f"{self._thought()}SPACE {self._all(several)}"
        key = json.dumps(as_json(self._calls.id_key))[1:-1]
        ids = [f'ID_FIRST: "{key}: " {ID} ", "', f'ID_LAST: ", {key}: " {ID}'] if self._calls.id_key else []
        return "\n".join([f"start: {start}", f"SPACE: {SPACE}", *ids, *self._rules]) + "\n"

    def _all(self, several: bool) -> str:
        """Every call with what is around them."""
        calls, call = self._calls, self._rule("call", " | ".join(self._call(tool) for tool in self._tools))
        if calls.listed:
            more = f' (SPACE "," SPACE {call})*' if several else ""
            inner = f'"[" SPACE {call}{more} SPACE "]"'
        else:
            comma = '("," SPACE)? ' if calls.arguments == "python" else ""
            inner = f"{call} (SPACE {comma}{call})*" if several else call
        section = calls.section
        if section.open.strip():
            inner = f"{self._literal(section.open.strip())} SPACE {inner} SPACE {self._literal(section.close.strip())}"
        before = self._format.content.close.strip()
        return f"({self._literal(before)} SPACE)? {inner}" if before else inner

    def _thought(self) -> str:
        """What may come before the calls: a thought, which comes to its end where the template began it."""
        region = self._format.reasoning
        if region is None:
            return ""
        thought = self._until(region.close.strip())
        return f"{thought} " if self._thinking else f"({self._literal(region.open.strip())} {thought})? "

    def _call(self, tool: Mapping[str, Any]) -> str:
        """One call of one tool, as the name of a rule."""
        calls = self._calls
        schema = _plain(tool.get("parameters") or {"type": "object"})
        before, _, after = calls.call.partition("{arguments}")
        before = before.replace("{name}", str(tool["name"])).replace("{id}", FIRST_ID).lstrip()
        opened = " /[0-9]{1,3}/ ".join(map(self._literal, before.split("{index}")))
        if calls.arguments == "call":
            opening, closing = _around(calls, str(tool["name"]))
            before_id, after_id = ("ID_FIRST?", "ID_LAST?") if calls.id_key else ("", "")
            parts = ('"{"', before_id, self._literal(opening), f"%json {as_json(schema)}", after_id)
            inner = " ".join([*filter(None, parts), self._literal(closing)])
        elif calls.arguments == "json":
            inner = f"%json {as_json(schema)}"
        elif calls.arguments == "tags":
            inner = self._tags(schema)
        else:
            quote = calls.quote if calls.arguments == "braces" else ""
            notation = Notation(self._rule, self._literal, self._until, quote)
            inner = notation.members(schema, (lambda key: f"{key}:") if quote else (lambda key: f"{key}="))
        return self._rule("tool", f"{opened} {inner} {self._literal(after.rstrip())}")

    def _tags(self, schema: Mapping[str, Any]) -> str:
        """Arguments between texts, in the order of the schema; those that are not required may be left out."""
        required = schema.get("required", ())
        parts = []
        for key, property in properties_of(schema).items():
            head, _, tail = self._calls.argument.partition("{value}")
            head = head.replace("{key}", key)
            if is_text(property):
                head = head.replace("{type}", self._calls.text_type)
            opened = " /[a-z]{1,16}/ ".join(map(self._literal, head.split("{type}")))
            tail = tail.replace("{key}", key)
            value = self._value(property, schema, tail)
            argument = self._rule("argument", f"{opened} {value}")
            parts.append(argument if key in required else f"{argument}?")
        return " ".join(parts)

    def _value(self, property: Any, schema: Mapping[str, Any], closing: str) -> str:
        if is_text(property) and "enum" in property:
            return f"({' | '.join(self._literal(item) for item in property['enum'])}) {self._literal(closing)}"
        if is_text(property) or not types_of(property):
            return self._until(closing)
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        return f"%json {as_json({**shared, **property})} {self._literal(closing)}"

    def _until(self, closing: str) -> str:
        """Any text up to a closing one."""
        parts = list(self._cut(closing))
        if parts and isinstance(parts[0], str):
            rule = self._rule("text", ANY, f"suffix={json.dumps(parts[0], ensure_ascii=False)}")
            return " ".join([rule, *map(_spelt, parts[1:])])
        return f"{ANY} {' '.join(map(_spelt, parts))}"

    def _literal(self, text: str) -> str:
        return " ".join(map(_spelt, self._cut(text))) or '""'

    def _rule(self, name: str, body: str, option: str = "") -> str:
        """The name of a new rule."""
        name = f"{name}_{len(self._rules)}"
        self._rules.append(f"{name}{f'[{option}]' if option else ''}: {body}")
        return name


def is_begun(region: Region | None, begun: str) -> bool:
    """Whether what the template wrote of a reply opened a thought and did not close it."""
    return region is not None and bool(region.open.strip()) and region.open.strip() in begun and (
        region.close.strip() not in begun
    )  # fmt: skip


def _spelt(part: str | int) -> str:
    return f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False)


def _around(calls: Calls, name: str) -> tuple[str, str]:
    """What a call's object has before its arguments, after the bracket and an id, and after them."""
    if not calls.name_key:
        return as_json(name) + ": ", "}"
    inner = f"{as_json(calls.name_key)}: {as_json(name)}, {as_json(calls.arguments_key)}: "
    if calls.inner_key:
        return as_json(calls.inner_key) + ": {" + inner, "}}"
    return inner, "}"


def _plain(schema: Any) -> Any:
    """A schema without what tells llguidance to be lenient."""
    if isinstance(schema, Mapping):
        return {key: _plain(value) for key, value in schema.items() if key != "x-guidance"}
    return [_plain(item) for item in schema] if isinstance(schema, list | tuple) else schema
