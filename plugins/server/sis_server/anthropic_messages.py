"""Answers of Anthropic's Messages API.

Facts of the format: Anthropic's API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Event, Finish, Reasoning, Usage
from sis_server.following import Heard

STOP = {
    "end": "end_turn",
    "stop": "stop_sequence",
    "length": "max_tokens",
    "context": "model_context_window_exceeded",
    "tool_calls": "tool_use",
}


class MessageWriter:
    """Writes the reply to one request.

    Args:
        model: its id.
        n_prompt: tokens of the prompt.
        stops: the caller's own stop sequences: at others the model's turn ends.
    """

    def __init__(self, model: str, n_prompt: int, stops: Sequence[str]) -> None:
        self._n_prompt, self._stops = n_prompt, stops
        self._head = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model}

    async def whole(self, heard: AsyncIterator[Heard]) -> dict[str, Any]:
        """The answer, when all has been heard."""
        blocks: list[dict[str, Any]] = []
        end: dict[str, Any] = {}
        async for said in heard:
            for event in said.events:
                if isinstance(event, Finish):
                    end = {**self._reason(event, said), "usage": _usage(event.usage)}
                elif isinstance(event, CallEnd):
                    blocks[-1]["input"] = json.loads(event.arguments)
                elif isinstance(event, CallStart):
                    blocks.append(_begun(event))
                elif isinstance(event, Content | Reasoning):
                    kind = "text" if isinstance(event, Content) else "thinking"
                    if not blocks or blocks[-1]["type"] != kind:
                        blocks.append(_begun(event))
                    blocks[-1][kind] += event.text
        return {**self._head, "content": blocks, **end}

    async def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[str, Any]]:
        """The answer as it comes."""
        usage = _usage(Usage(self._n_prompt, 0, 0))
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        yield _event("message_start", message=message)
        index, open_kind = -1, None
        async for said in heard:
            for event in said.events:
                kind = _kind(event)
                if open_kind is not None and (isinstance(event, CallStart) or kind != open_kind):
                    yield _event("content_block_stop", index=index)
                    open_kind = None
                if isinstance(event, Finish):
                    yield _event("message_delta", delta=self._reason(event, said), usage=_usage(event.usage))
                    continue
                if open_kind is None and kind is not None:
                    index, open_kind = index + 1, kind
                    yield _event("content_block_start", index=index, content_block=_begun(event))
                if (delta := _delta(event)) is not None:
                    yield _event("content_block_delta", index=index, delta=delta)
        yield _event("message_stop")

    def _reason(self, finish: Finish, said: Heard) -> dict[str, Any]:
        reason, stop = STOP[finish.reason], said.piece.stop
        if reason == "stop_sequence" and stop not in self._stops:
            reason, stop = "end_turn", None
        return {"stop_reason": reason, "stop_sequence": stop}


def _kind(event: Event) -> str | None:
    """The kind of block that an event belongs to."""
    match event:
        case Content():
            return "text"
        case Reasoning():
            return "thinking"
        case CallStart() | CallArguments() | CallEnd():
            return "tool_use"
    return None


def _begun(event: Event) -> dict[str, Any]:
    """An empty block for what an event begins."""
    match event:
        case CallStart(_, id, name):
            return {"type": "tool_use", "id": id, "name": name, "input": {}}
        case Reasoning():
            return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _delta(event: Event) -> dict[str, Any] | None:
    match event:
        case Content(text):
            return {"type": "text_delta", "text": text}
        case Reasoning(text):
            return {"type": "thinking_delta", "thinking": text}
        case CallArguments(_, text):
            return {"type": "input_json_delta", "partial_json": text}
    return None


def _event(kind: str, /, **fields: Any) -> tuple[str, Any]:
    return kind, {"type": kind, **fields}


def _usage(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage(0, 0, 0)
    return {
        "input_tokens": usage.n_prompt - usage.n_cached,
        "cache_read_input_tokens": usage.n_cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.n_generated,
    }
