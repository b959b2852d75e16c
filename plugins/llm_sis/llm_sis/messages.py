"""Messages and tools of `llm` as those of sis, and events of sis as those of `llm`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart, ToolCallPart, ToolResultPart

from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Event, Finish, Message, Reasoning, Tool


def messages_of(given: Iterable[Any]) -> Iterator[Message]:
    """`llm`'s messages one by one; each result of a tool is a message of its own."""
    for message in given:
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        for result in results:
            content = result.output if result.exception is None else f"{result.exception}: {result.output}"
            yield {"role": "tool", "tool_call_id": result.tool_call_id, "name": result.name, "content": content}
        if len(results) == len(message.parts) and results:
            continue
        found: dict[str, Any] = {"role": message.role, "content": _joined(message, TextPart)}
        if thought := _joined(message, ReasoningPart):
            found["reasoning_content"] = thought
        if calls := [_call(part) for part in message.parts if isinstance(part, ToolCallPart)]:
            found["tool_calls"] = calls
        yield found


def _joined(message: Any, kind: type[Any]) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, kind))


def _call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": json.dumps(part.arguments)}
    return {"id": part.tool_call_id, "type": "function", "function": function}


def tools_of(given: Iterable[Any]) -> list[Tool]:
    """`llm`'s tools."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.input_schema or {"type": "object", "properties": {}},
            },
        }
        for tool in given
    ]


class Following:
    """Turns the events of one reply into those of `llm`, and tells its response of calls and tokens."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._starts: dict[int, CallStart] = {}

    def push(self, event: Event) -> Iterator[StreamEvent]:
        match event:
            case Content(text):
                yield StreamEvent(type="text", chunk=text)
            case Reasoning(text):
                yield StreamEvent(type="reasoning", chunk=text)
            case CallStart(index, id, name):
                self._starts[index] = event
                yield StreamEvent(type="tool_call_name", chunk=name, tool_call_id=id)
            case CallArguments(index, text):
                yield StreamEvent(type="tool_call_args", chunk=text, tool_call_id=self._starts[index].id)
            case CallEnd(index, arguments):
                start = self._starts[index]
                call = llm.ToolCall(start.name, json.loads(arguments), start.id)
                self._response.add_tool_call(call)
            case Finish(_, usage) if usage is not None:
                details = {"cached": usage.n_cached} if usage.n_cached else None
                self._response.set_usage(input=usage.n_prompt, output=usage.n_generated, details=details)
