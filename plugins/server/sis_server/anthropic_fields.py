"""Fields of Anthropic's Messages API, and how its messages become those of `sis_core.chat`.

Facts of the format: Anthropic's API reference, "Messages" (docs.anthropic.com/en/api/messages).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sis_core.chat import ToolChoice
from sis_server.chat_asked import Chatting
from sis_server.errors import ApiError
from sis_server.fields import Asked, Count, Stops

Block = Mapping[str, Any]


class ChoiceOfTool(Struct, forbid_unknown_fields=True):
    """Whether a tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct, forbid_unknown_fields=True):
    """Whether the model is to think, where its template has a switch for that; how long is its own affair."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Count | None = None
    display: Literal["summarized", "omitted"] | None = None


class MessageTokens(Asked, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/messages/count_tokens"""

    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tool_choice: ChoiceOfTool = msgspec.field(default_factory=lambda: ChoiceOfTool("auto"))
    thinking: Thinking | None = None
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class Message(MessageTokens, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/messages"""

    max_tokens: Count
    stop_sequences: Stops = msgspec.field(default_factory=list)


def read(asked: MessageTokens, sampling: dict[str, Any], salt: str) -> Chatting:
    """What a request asks for; ApiError names what no chat can express."""
    messages: list[dict[str, Any]] = []
    if system := _text_of(asked.system, "system"):
        messages.append({"role": "system", "content": system})
    for i, message in enumerate(asked.messages):
        messages += _messages(message, f"messages[{i}]")
    options = dict(asked.chat_template_kwargs)
    if asked.thinking is not None:
        options.setdefault("enable_thinking", asked.thinking.type != "disabled")
    stops = asked.stop_sequences if isinstance(asked, Message) else ()
    return Chatting(
        messages,
        [_tool(tool, f"tools[{i}]") for i, tool in enumerate(asked.tools)],
        _choice(asked),
        sampling,
        options,
        continue_last=bool(messages) and messages[-1]["role"] == "assistant",
        max_tokens=asked.max_tokens if isinstance(asked, Message) else 1,
        stop=(stops,) if isinstance(stops, str) else stops,
        ignore_end=asked.ignore_eos,
        salt=salt,
        priority=asked.priority,
    )


def _choice(asked: MessageTokens) -> ToolChoice:
    choice = asked.tool_choice
    if choice.type in ("any", "tool") and not asked.tools:
        raise ApiError(400, "there are no tools to choose from", param="tool_choice")
    if choice.type == "tool":
        if choice.name is None:
            raise ApiError(400, "does not name the tool", param="tool_choice")
        return choice.name
    return {"any": "required"}.get(choice.type, choice.type)


def _tool(tool: Block, where: str) -> dict[str, Any]:
    if tool.get("type", "custom") != "custom":
        raise ApiError(400, f"{tool.get('type')!r:.80} is a tool of other servers, not of this one", param=where)
    function = {"name": tool.get("name"), "description": tool.get("description", "")}
    return {"type": "function", "function": {**function, "parameters": tool.get("input_schema", {})}}


def _messages(message: Block, where: str) -> list[dict[str, Any]]:
    """A message of theirs as ours: the results of tools are messages of their own here."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise ApiError(400, f"the role is {role!r:.80}, not user or assistant", param=f"{where}.role")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ApiError(400, "is neither a text nor a list of blocks", param=f"{where}.content")
    return _from_assistant(content, where) if role == "assistant" else _from_user(content, where)


def _from_user(content: list[Block], where: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    texts: list[str] = []
    for i, block in enumerate(content):
        place = f"{where}.content[{i}]"
        if block.get("type") == "tool_result":
            result = _text_of(block.get("content", ""), place)
            made.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": result})
        else:
            texts.append(_text_of([block], place))
    return [*made, {"role": "user", "content": "\n".join(texts)}] if texts else made


def _from_assistant(content: list[Block], where: str) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    for i, block in enumerate(content):
        place = f"{where}.content[{i}]"
        match block.get("type"):
            case "thinking":
                message["reasoning_content"] = message.get("reasoning_content", "") + _field(block, "thinking", place)
            case "redacted_thinking":
                pass
            case "tool_use":
                if not isinstance(block.get("input"), dict):
                    raise ApiError(400, "the input is not an object", param=place)
                function = {"name": block.get("name"), "arguments": json.dumps(block["input"], ensure_ascii=False)}
                call = {"id": block.get("id"), "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
            case _:
                message["content"] += _text_of([block], place)
    return [message]


def _text_of(content: Any, where: str) -> str:
    """The text of a text, or of blocks of text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, "is neither a text nor a list of blocks", param=where)
    texts = []
    for block in content:
        if not isinstance(block, dict) or block.get("type") != "text":
            kind = block.get("type") if isinstance(block, dict) else block
            raise ApiError(400, f"{kind!r:.80} is no block that this model can read", param=where)
        texts.append(_field(block, "text", where))
    return "\n".join(texts)


def _field(block: Block, name: str, where: str) -> str:
    if not isinstance(value := block.get(name), str):
        raise ApiError(400, f"{name} is not a text", param=where)
    return value
