"""Answers of OpenAI's Responses API, and those that are kept to be gone on from.

Facts of the format: OpenAI's API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from attrs import define, field, frozen

from sis_core.chat import CallArguments, CallEnd, CallStart, Content, Event, Finish, Reasoning, Usage
from sis_server.errors import ApiError
from sis_server.following import Heard
from sis_server.responses_fields import Item, Response

MAX_KEPT = 256


@frozen
class Kept:
    """A response that others may go on from: all items up to its end."""

    salt: str
    items: Sequence[Item]


@define
class Store:
    """The last responses, in memory; the oldest go first. Used from the event loop alone."""

    _kept: OrderedDict[str, Kept] = field(factory=OrderedDict)

    def add(self, id: str, kept: Kept) -> None:
        self._kept[id] = kept
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def items(self, id: str | None, salt: str) -> Sequence[Item]:
        """The items up to the end of a response, none without an id.

        ApiError 404 for one that is not kept, or was made with another key.
        """
        if id is None:
            return ()
        found = self._kept.get(id)
        if found is None or found.salt != salt:
            raise ApiError(404, f"the response {id!r:.80} is not kept", param="previous_response_id")
        return found.items


class ResponseWriter:
    """Writes the reply to one request.

    Args:
        model: its id.
        keep: called with the response's id and the items of its output when it is over.
    """

    def __init__(self, model: str, asked: Response, keep: Callable[[str, Sequence[Item]], None]) -> None:
        self._id = _id("resp")
        self._output: list[dict[str, Any]] = []
        self._asked, self._model, self._created, self._keep = asked, model, int(time.time()), keep
        self._sequence = 0

    async def whole(self, heard: AsyncIterator[Heard]) -> dict[str, Any]:
        """The answer, when all has been heard."""
        response: dict[str, Any] = {}
        async for _, event in self._events(heard):
            response = event.get("response", response)
        return response

    async def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[str, Any]]:
        """The answer as it comes."""
        async for name, event in self._events(heard):
            yield name, event

    async def _events(self, heard: AsyncIterator[Heard]) -> AsyncGenerator[tuple[str, Any]]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        open_item: _Item | None = None
        async for said in heard:
            for event in said.events:
                if open_item is not None and not open_item.takes(event):
                    for name, fields in open_item.end():
                        yield self._event(name, **fields)
                    open_item = None
                if isinstance(event, Finish):
                    yield self._ended(event)
                    continue
                if open_item is None:
                    open_item = _Item.of(event, len(self._output))
                    self._output.append(open_item.item)
                    for name, fields in open_item.begin():
                        yield self._event(name, **fields)
                for name, fields in open_item.push(event):
                    yield self._event(name, **fields)

    def _ended(self, finish: Finish) -> tuple[str, Any]:
        self._keep(self._id, self._output)
        if finish.reason in ("length", "context"):
            why = {"reason": "max_output_tokens"}
            response = self._response("incomplete", finish.usage, incomplete_details=why)
            return self._event("response.incomplete", response=response)
        return self._event("response.completed", response=self._response("completed", finish.usage))

    def _event(self, kind: str, /, **fields: Any) -> tuple[str, Any]:
        number, self._sequence = self._sequence, self._sequence + 1
        return kind, {"type": kind, "sequence_number": number, **fields}

    def _response(self, status: str, usage: Usage | None = None, **fields: Any) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions or None,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": {},
            "model": self._model,
            "output": [dict(item) for item in self._output],
            "parallel_tool_calls": True,
            "previous_response_id": asked.previous_response_id,
            "store": asked.store,
            "tool_choice": asked.tool_choice,
            "tools": asked.tools,
            "usage": None if usage is None else _usage(usage),
            **fields,
        }


class _Item:
    """One item of the output on its way: a text, a thought, or a call."""

    def __init__(self, item: dict[str, Any], index: int, prefix: str) -> None:
        self.item, self._index, self._prefix = item, index, prefix
        self._texts: list[str] = []

    @classmethod
    def of(cls, event: Event, index: int) -> _Item:
        """An item for what an event begins."""
        item: dict[str, Any]
        if isinstance(event, CallStart):
            item = {"id": _id("fc"), "type": "function_call", "status": "in_progress", "call_id": event.id,
                    "name": event.name, "arguments": ""}  # fmt: skip
            return cls(item, index, "response.function_call_arguments")
        if isinstance(event, Reasoning):
            item = {"id": _id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
            return cls(item, index, "response.reasoning_text")
        item = {"id": _id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return cls(item, index, "response.output_text")

    def takes(self, event: Event) -> bool:
        """Whether an event belongs to this item."""
        kinds: dict[str, Any] = {"message": Content, "reasoning": Reasoning, "function_call": (CallArguments, CallEnd)}
        return isinstance(event, kinds[self.item["type"]])

    def begin(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and fields of the events that open it."""
        events = [("response.output_item.added", {"output_index": self._index, "item": dict(self.item)})]
        if self.item["type"] == "message":
            events.append(("response.content_part.added", {**self._place(), "part": self._part()}))
        return events

    def push(self, event: Event) -> list[tuple[str, dict[str, Any]]]:
        """Those of one more piece."""
        if not isinstance(event, Content | Reasoning | CallArguments) or not event.text:
            return []
        self._texts.append(event.text)
        logprobs: dict[str, Any] = {"logprobs": []} if isinstance(event, Content) else {}
        return [(f"{self._prefix}.delta", {**self._place(), "delta": event.text, **logprobs})]

    def end(self) -> list[tuple[str, dict[str, Any]]]:
        """Those that close it."""
        text, place = "".join(self._texts), self._place()
        self.item["status"] = "completed"
        if self.item["type"] == "function_call":
            self.item["arguments"] = text
            events = [(f"{self._prefix}.done", {**place, "name": self.item["name"], "arguments": text})]
        elif self.item["type"] == "reasoning":
            self.item["content"] = [{"type": "reasoning_text", "text": text}]
            events = [(f"{self._prefix}.done", {**place, "text": text})]
        else:
            self.item["content"] = [self._part()]
            events = [
                (f"{self._prefix}.done", {**place, "text": text, "logprobs": []}),
                ("response.content_part.done", {**place, "part": self._part()}),
            ]
        return [*events, ("response.output_item.done", {"output_index": self._index, "item": dict(self.item)})]

    def _place(self) -> dict[str, Any]:
        place = {"item_id": self.item["id"], "output_index": self._index}
        return place if self.item["type"] == "function_call" else {**place, "content_index": 0}

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": "".join(self._texts), "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.n_prompt,
        "input_tokens_details": {"cached_tokens": usage.n_cached},
        "output_tokens": usage.n_generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.n_prompt + usage.n_generated,
    }


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
