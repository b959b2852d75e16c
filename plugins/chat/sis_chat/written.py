"""One template of a model, compiled, with what its replies look like."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sis_chat.jinja.template import ChatTemplate
from sis_chat.jinja.text import plain
from sis_chat.messages import normalised
from sis_chat.replies.detect import detect
from sis_chat.replies.format import ReplyFormat
from sis_core.chat import Tool
from sis_core.errors import ChatError


class WrittenTemplate:
    """A template that knows how replies to it are written; asked for that once, when it is first needed. Thread-safe.

    Args:
        specials: the values of ``bos_token`` and ``eos_token``.
    """

    def __init__(self, source: str, *, name: str, specials: Mapping[str, str]) -> None:
        self._template = ChatTemplate(source, name=name)
        self._specials = dict(specials)
        self._format: ReplyFormat | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Where the template came from."""
        return self._template.name

    @property
    def format(self) -> ReplyFormat:
        """How replies are written."""
        with self._lock:
            if self._format is None:
                self._format = detect(self.text, self._template.source)
            return self._format

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
        **options: Any,
    ) -> str:
        """What the template makes of messages, as a `sis_chat.jinja.text.Text`; TemplateError where it fails."""
        return self._template.render(
            {
                "documents": None,
                **options,
                **self._specials,
                "messages": normalised(messages),
                "tools": list(tools) or None,
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def begun(
        self, text: str, before: Sequence[Mapping[str, Any]], tools: Sequence[Tool], options: Mapping[str, Any]
    ) -> str:
        """The part of a rendered ``text`` that belongs to the reply, after the messages ``before`` it."""
        header = self.format.header
        if header.strip():
            return text.rpartition(header)[2]
        try:
            question = plain(self.text(before, tools, add_generation_prompt=False, **options))
        except ChatError:
            return ""
        return text.removeprefix(question) if text.startswith(question) else ""

    def fitted(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages with the arguments of calls as this template wants them."""
        if not any("tool_calls" in message for message in messages) or not self.format.arguments_as_text:
            return list(messages)
        return [_with_text(message) if "tool_calls" in message else message for message in messages]


def _with_text(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        function = {
            **call["function"],
            "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
        }
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
