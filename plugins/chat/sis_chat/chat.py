"""A template opened for one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sis_chat.errors import MessageError, ReplyError, TemplateError
from sis_chat.jinja.template import ChatTemplate
from sis_chat.jinja.text import cut, plain
from sis_chat.messages import checked, checked_tools
from sis_chat.options import checked_options
from sis_chat.segments import Encoder
from sis_core.chat import Message, Rendered, ReplyParser, Tool, ToolChoice
from sis_core.sampler import Sampler
from sis_core.tokenizer import Tokenizer

CONTINUED = "\U000f0000to be continued\U000f0001"  # private-use characters stand around what no message says
TEMPLATE_KEY = "tokenizer.chat_template"


class Opened(Protocol):
    """What a chat needs of a model: its file's keys and its tokenizer."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


class JinjaChat:
    """A `sis_core.chat.Chat` by a Jinja template. Immutable and thread-safe.

    Args:
        name: of the template, for messages.
        stop: texts that end a reply.
    """

    def __init__(self, model: Opened, source: str, *, name: str, stop: tuple[str, ...] = ()) -> None:
        self.name, self._stop = name, stop
        self._template = ChatTemplate(source, name=name)
        with_tools = model.metadata.get(f"{TEMPLATE_KEY}.tool_use")
        self._with_tools = (
            ChatTemplate(with_tools, name=f"{name} (tool_use)")
            if isinstance(with_tools, str) and source == model.metadata.get(TEMPLATE_KEY)
            else self._template
        )
        self._encoder = Encoder(model.tokenizer, model.metadata)
        self._specials = {
            f"{role}_token": "" if token is None else model.tokenizer.token_text(token)
            for role, token in (("bos", model.tokenizer.bos), ("eos", model.tokenizer.eos))
        }

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        continue_last: bool = False,
        **options: Any,
    ) -> Rendered:
        """Messages as the model reads them, up to where its reply begins.

        Args:
            continue_last: go on with the last message, an assistant's, instead of beginning a new one.
            options: the template's own, such as ``enable_thinking`` or ``documents``.

        Raises:
            MessageError: a message, tool or option that no template may be given.
            TemplateError: the template refuses them, or fails.
        """
        values = checked(messages)
        listed = checked_tools(tools)
        own = checked_options(options)
        if continue_last:
            _mark_last(values)
        text = self.text(values, listed, add_generation_prompt=not continue_last, **own)
        reply = ""
        if continue_last:
            text = _until_mark(text, self.name)
            reply = plain(values[-1]["content"]).removesuffix(CONTINUED)
        return Rendered(self._encoder.segments(text), self._stop, tuple(listed), reply)

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
        **options: Any,
    ) -> str:
        """What the template makes of checked messages, as a `sis_chat.jinja.text.Text`."""
        template = self._with_tools if tools else self._template
        return template.render(
            {
                "documents": None,
                **options,
                **self._specials,
                "messages": messages,
                "tools": list(tools) or None,
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def parser(self, rendered: Rendered) -> ReplyParser:
        """A parser for the reply to a rendered chat."""
        raise NotImplementedError

    def constraint(self, tools: Sequence[Tool], choice: ToolChoice) -> Sampler | None:
        """A sampler that holds a reply to the calls that ``choice`` asks for; None where it asks for nothing."""
        if choice in ("auto", "none"):
            return None
        raise ReplyError(f"how calls are written is not known for {self.name}", where="tools")

    def describe(self) -> str:
        """One line for `sis doctor`."""
        return self.name


def _mark_last(messages: list[dict[str, Any]]) -> None:
    last = messages[-1]
    if last["role"] != "assistant" or not isinstance(last.get("content"), str) or "tool_calls" in last:
        raise MessageError(
            "is not an assistant's text, which is all that can be continued", where=f"messages[{len(messages) - 1}]"
        )
    messages[-1] = {**last, "content": last["content"] + CONTINUED}


def _until_mark(text: str, name: str) -> str:
    at = plain(text).rfind(CONTINUED)
    if at < 0:
        raise TemplateError("does not write the end of the last message, so it cannot be continued", where=name)
    return cut(text, 0, at)
