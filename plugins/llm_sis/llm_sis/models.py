"""`llm`'s models that answer prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing
from functools import cached_property
from typing import Any

import llm
from llm.parts import StreamEvent

from llm_sis.house import House, Resident
from llm_sis.messages import Following, messages_of, tools_of
from llm_sis.options import given, options_of
from sis_core.chat import Event
from sis_core.errors import SisError


class _Answering:
    """What both kinds of model are: one that streams, with tools and schemas."""

    can_stream, supports_schema, supports_tools = True, True, True

    def __init__(self, model_id: str, house: House, resident: Resident) -> None:
        self.model_id, self._house, self._resident = model_id, house, resident

    @cached_property
    def Options(self) -> type[llm.Options]:  # noqa: N802 - llm's name
        """Made when first asked for: it needs every sampler."""
        return options_of(self._house.registry)

    def _events(self, prompt: Any) -> Generator[Event]:
        """The events of a reply; what goes wrong is `llm`'s ModelError."""
        options = given(prompt.options)
        try:
            template = options.pop("template", None)
            if prompt.schema is not None:
                options["schema"] = prompt.schema
            messages = list(messages_of(prompt.messages))
            yield from self._resident.stream(messages, template, {**options, "tools": tools_of(prompt.tools)})
        except SisError as error:
            raise llm.ModelError(str(error)) from error


class SisModel(_Answering, llm.Model):  # type: ignore[misc]  # Options is a class there
    """A model that `llm` asks and waits for."""

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str | StreamEvent]:
        following = Following(response)
        with closing(self._events(prompt)) as events:
            for event in events:
                yield from following.push(event)


class AsyncSisModel(_Answering, llm.AsyncModel):  # type: ignore[misc]
    """The same for programs with an event loop: each step of the model runs on a thread."""

    async def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any
    ) -> AsyncGenerator[str | StreamEvent, None]:
        following, events = Following(response), self._events(prompt)
        try:
            while (event := await asyncio.to_thread(next, events, None)) is not None:
                for told in following.push(event):
                    yield told
        finally:
            await asyncio.to_thread(events.close)
