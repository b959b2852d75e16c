"""Messages and tools as a caller gives them, made into what templates expect, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sis_chat.errors import MessageError

# The names that APIs give to what a model thought. The first is the one that most templates read, "thinking" gpt-oss'.
REASONING = ("reasoning_content", "thinking", "reasoning")
MAX_DEPTH = 60
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


def normalised(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of ``messages`` without keys of no value, with what was thought under every name that templates read.

    Source: what transformers does to messages before it renders them.
    """
    made = []
    for message in messages:
        known = {key: value for key, value in message.items() if value is not None}
        thought = next((known[name] for name in REASONING if name in known), None)
        if thought is not None:
            known = {"thinking": thought, **known, "reasoning_content": thought}
        made.append(known)
    return made


def checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`normalised` messages, with texts joined from their parts and arguments of calls as objects.

    Raises:
        MessageError: a message is none, and why; roles are names, for templates make control tokens of them.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise MessageError("are not a list", where="messages", fix='give [{"role": "user", "content": "…"}]')
    if not messages:
        raise MessageError("are empty", where="messages", fix="give at least one")
    made = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise MessageError(f"is {_kind(message)}, not an object with role and content", where=where)
        _plain(message, where)
        role = message.get("role")
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise MessageError(
                f"has the role {role!r}", where=where, fix="roles are system, developer, user, assistant and tool"
            )
        copy = dict(message)
        if "content" in copy:
            copy["content"] = _content(copy["content"], where)
        calls = copy.get("tool_calls")
        if calls is not None:
            copy["tool_calls"] = _calls(calls, f"{where}.tool_calls")
            if not calls:
                del copy["tool_calls"]
        for name in REASONING:
            if not isinstance(copy.get(name), str | None):
                raise MessageError(f"{name} is {_kind(copy[name])}, not a text", where=where)
        made.append(copy)
    return normalised(made)


def checked_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools in the form that templates expect. MessageError names the one that is none."""
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise MessageError("are not a list", where="tools")
    made, names = [], set()
    for i, tool in enumerate(tools):
        where = f"tools[{i}]"
        if not isinstance(tool, Mapping):
            raise MessageError(f"is {_kind(tool)}, not an object", where=where)
        _plain(tool, where)
        function = tool.get("function") if tool.get("type", "function") == "function" else None
        if not isinstance(function, Mapping):
            raise MessageError("is not of the type function", where=where)
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise MessageError(f"has the name {name!r}", where=where, fix="use letters, digits, _ and -")
        if name in names:
            raise MessageError(f"has the name {name!r} of another", where=where)
        names.add(name)
        if not isinstance(function.get("parameters", {}), Mapping):
            raise MessageError("has parameters that are no JSON schema", where=where)
        made.append({**tool, "type": "function", "function": dict(function)})
    return made


def _content(content: Any, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise MessageError(f"content is {_kind(content)}, not a text or a list of parts", where=where)
    texts = []
    for j, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in (None, "text", "input_text", "output_text") or not isinstance(text, str):
            raise MessageError(
                f"is a part of the type {kind or _kind(part)!r}, and only text is understood",
                where=f"{where}.content[{j}]",
            )
        texts.append(text)
    return "\n".join(texts)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise MessageError(f"is {_kind(calls)}, not a list", where=where)
    made = []
    for j, call in enumerate(calls):
        here = f"{where}[{j}]"
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MessageError("is not a call of a function with a name", where=here)
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as error:
                raise MessageError(f"has arguments that are not JSON: {error}", where=here) from None
        if not isinstance(arguments, Mapping):
            raise MessageError(f"has arguments that are {_kind(arguments)}, not an object", where=here)
        _plain(arguments, here)
        made.append({"type": "function", **call, "function": {**function, "arguments": dict(arguments)}})
    return made


def _plain(value: Any, where: str) -> None:
    """MessageError unless ``value`` is of JSON's types, not too deep, and its texts are ones."""
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise MessageError(f"is nested more than {MAX_DEPTH} deep", where=where)
        if isinstance(item, Mapping):
            stack += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            stack += [(part, depth + 1) for part in item]
        elif isinstance(item, str):
            if not item.isascii() and (bad := re.search("[\ud800-\udfff]", item)):
                raise MessageError(f"holds the lone surrogate U+{ord(bad[0]):04X}, which is no text", where=where)
        elif not isinstance(item, int | float | None):
            raise MessageError(f"holds {_kind(item)}, which JSON does not know", where=where)


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of the type {type(value).__name__}"
