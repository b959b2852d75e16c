"""Fields of OpenAI's Responses API, and how its items become messages of `sis_core.chat`.

Facts of the format: OpenAI's API reference, "Responses" (platform.openai.com/docs/api-reference/responses).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sis_core.chat import ToolChoice
from sis_server.chat_asked import Chatting
from sis_server.errors import ApiError
from sis_server.fields import Asked, Count, StreamOptions
from sis_server.sampling import format_options

Item = Mapping[str, Any]
NOT_HERE = frozenset(
    ("namespace", "web_search", "web_search_preview", "file_search", "code_interpreter", "image_generation", "mcp",
     "local_shell", "computer_use_preview", "tool_search", "custom")
)  # fmt: skip
"""Tools of OpenAI's servers, and ones in forms that templates lack: clients offer them, and do without."""


class Written(Struct, forbid_unknown_fields=True):
    """How the text of a response is to be written."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None  # the prompt says it


class Thought(Struct, forbid_unknown_fields=True):
    """How much is to be thought, and told of it: the model's template decides."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Response(Asked, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/responses"""

    input: str | list[dict[str, Any]]
    instructions: str = ""
    previous_response_id: str | None = None
    max_output_tokens: Count | None = None
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    text: Written = msgspec.field(default_factory=Written)
    reasoning: Thought = msgspec.field(default_factory=Thought)
    stream_options: StreamOptions | None = None
    store: bool = True
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


def read(asked: Response, before: Sequence[Item], sampling: dict[str, Any], salt: str) -> Chatting:
    """What a request asks for, after the items of the response that it goes on from."""
    items = [*before, *items_of(asked)]
    messages = messages_of(items)
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(asked.tools) if str(tool.get("type")) not in NOT_HERE]
    return Chatting(
        messages,
        tools,
        _choice(asked.tool_choice, tools),
        sampling | format_options(asked.text.format, "text.format"),
        asked.chat_template_kwargs,
        max_tokens=asked.max_output_tokens,
        ignore_end=asked.ignore_eos,
        salt=salt,
        priority=asked.priority,
    )


def items_of(asked: Response) -> list[Item]:
    """What the request itself brings."""
    if isinstance(asked.input, str):
        return [{"type": "message", "role": "user", "content": asked.input}]
    return list(asked.input)


def messages_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items as messages: an assistant's reasoning, text and calls are one message here."""
    messages: list[dict[str, Any]] = []
    for i, item in enumerate(items):
        where, kind = f"input[{i}]", item.get("type", "message")
        if kind == "message":
            role, text = item.get("role"), _text_of(item.get("content"), where)
            if role == "assistant":
                message = _turn(messages)
                message["content"] += text
            else:
                messages.append({"role": role, "content": text})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            _turn(messages).setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            result = _text_of(item.get("output"), where)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": result})
        elif kind == "reasoning":
            parts = item.get("content") or item.get("summary") or []
            if text := _text_of(parts, where):
                _turn(messages)["reasoning_content"] = text
        else:
            raise ApiError(400, f"{kind!r:.80} is no item that this model can read", param=where)
    return messages


def _turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message that is being put together."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _text_of(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, "is neither a text nor a list of parts", param=where)
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise ApiError(400, f"{kind!r:.80} is no part that this model can read", param=where)
        texts.append(text)
    return "\n".join(texts)


def _tool(tool: Item, where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise ApiError(400, f"{tool.get('type')!r:.80} is no kind of tool", param=where)
    function = {"name": tool.get("name"), "description": tool.get("description") or ""}
    return {"type": "function", "function": {**function, "parameters": tool.get("parameters") or {}}}


def _choice(given: str | Mapping[str, Any], tools: Sequence[Any]) -> ToolChoice:
    name = given.get("name") if isinstance(given, Mapping) and given.get("type") == "function" else given
    if not isinstance(name, str) or (isinstance(given, str) and given not in ("auto", "none", "required")):
        raise ApiError(400, "is neither auto, none, required nor a function", param="tool_choice")
    if name not in ("auto", "none") and not tools:
        raise ApiError(400, "there are no tools to choose from", param="tool_choice")
    return name
