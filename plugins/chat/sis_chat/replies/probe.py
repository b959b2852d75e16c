"""Asking a template: what does it make of a turn that we know? Its words stand nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from sis_chat.jinja.text import plain
from sis_chat.replies.atoms import common_prefix, common_suffix, first_mark
from sis_core.errors import ChatError

QUESTION, ANSWER, THOUGHT = "probing question", "probing answer", "probing thought"
NAMES, IDS = ("probe_first", "probe_second"), ("probe0001", "probe0002")
ARGUMENTS: tuple[dict[str, Any], ...] = ({"alpha": "valuea", "beta": 731}, {"alpha": "valueb", "beta": 842})
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": {
                "type": "object",
                "properties": {
                    "alpha": {"type": "string", "description": "A text."},
                    "beta": {"type": "integer", "description": "A number."},
                },
                "required": ["alpha", "beta"],
            },
        },
    }
    for name in NAMES
]
USER = {"role": "user", "content": QUESTION}
THINKING: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": True, "thinking": True})


class Render(Protocol):
    """What a template makes of messages, as `sis_chat.chat.JinjaChat.text` does."""

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        add_generation_prompt: bool = True,
        **options: Any,
    ) -> str: ...


@frozen
class Called:
    """Turns with one call and, where the template can, with two."""

    turns: tuple[str, ...]
    as_text: bool
    with_content: bool


@frozen
class Thought:
    """A turn with a thought, what ends it there, and whether an answer follows or a call."""

    turn: str
    close: str
    answered: bool


class Probe:
    """One template under question.

    Attributes:
        tools: those with which turns without calls are rendered: none, where the template can do without.
        shared: what a turn and its question had in common, where one did not begin with the other.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self.shared = ""
        self.tools: Sequence[Mapping[str, Any]] = ()
        if self.text([USER], ()) is None:
            self.tools = TOOLS

    def turn(self, message: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = (), **options: Any) -> str | None:
        """What it writes for an assistant's message after a question; None where it refuses it."""
        return self.beyond([USER, {"role": "assistant", **message}], tools, False, options)

    def beyond(self, messages: Any, tools: Any, prompt: bool, options: Mapping[str, Any]) -> str | None:
        """What is rendered beyond the question."""
        before = self.text([USER], tools, add_generation_prompt=False, **options)
        text = self.text(messages, tools, add_generation_prompt=prompt, **options)
        if before is None or text is None:
            return None
        if text.startswith(before):
            return text[len(before) :]
        self.shared = common_prefix(text, before)
        return text[len(self.shared) :]

    def text(self, messages: Any, tools: Any, **options: Any) -> str | None:
        try:
            return plain(self._render(messages, tools, **options))
        except ChatError:
            return None

    def thought(self, called: Called | None) -> Thought | None:
        """A turn with a thought before an answer, or where there is none, before a call."""
        thought = {"reasoning_content": THOUGHT, "thinking": THOUGHT, "reasoning": THOUGHT}
        for options in THINKING:
            turn = self.turn({"content": ANSWER, **thought}, self.tools, **options)
            if turn is not None and THOUGHT in turn and ANSWER in turn[turn.index(THOUGHT) :]:
                return Thought(turn, turn.partition(THOUGHT)[2].partition(ANSWER)[0], True)
        if called is None:
            return None
        turn = self.turn({"content": "", "tool_calls": probe_calls(1, called.as_text), **thought}, TOOLS)
        if turn is None or THOUGHT not in turn or NAMES[0] not in turn[turn.index(THOUGHT) :]:
            return None
        after = turn.partition(THOUGHT)[2].partition(NAMES[0])[0]
        opening = common_suffix(called.turns[0].partition(NAMES[0])[0], after)
        return Thought(turn, after.removesuffix(opening) or first_mark(after), False)

    def called(self) -> Iterable[Called | None]:
        for as_text in (False, True):
            for more in ({"content": ""}, {}, {"content": ANSWER}):
                yield self._called_with(as_text, more)

    def _called_with(self, as_text: bool, more: Mapping[str, Any]) -> Called | None:
        def turn(n: int) -> str | None:
            return self.turn({**more, "tool_calls": probe_calls(n, as_text)}, TOOLS)

        one = turn(1)
        if one is None or not all(word in one for word in (NAMES[0], "alpha", "valuea", "731")):
            return None
        if re.search(r"\{'|\\\"alpha", one):  # an object where a text is wanted, or the other way round
            return None
        two = turn(2)
        parallel = two is not None and all(word in two for word in (*NAMES, "valueb", "842"))
        return Called((one, two) if parallel and two is not None else (one,), as_text, "content" in more)


def probe_calls(n: int, as_text: bool) -> list[dict[str, Any]]:
    """The first ``n`` calls of the probes."""
    return [
        {
            "id": IDS[i],
            "type": "function",
            "function": {"name": NAMES[i], "arguments": json.dumps(ARGUMENTS[i]) if as_text else ARGUMENTS[i]},
        }
        for i in range(n)
    ]
