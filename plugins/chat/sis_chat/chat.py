"""A template opened for one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sis_chat.errors import MessageError, ReplyError, TemplateError
from sis_chat.jinja.text import cut, plain
from sis_chat.messages import checked, checked_tools
from sis_chat.options import checked_options
from sis_chat.replies.format import ReplyFormat
from sis_chat.replies.grammar import CallGrammar, is_begun
from sis_chat.replies.parser import Parser
from sis_chat.segments import Encoder
from sis_chat.written import WrittenTemplate
from sis_core.chat import Message, Rendered, ReplyParser, Tool, ToolChoice
from sis_core.registry import Registry
from sis_core.sampler import Sampler
from sis_core.tokenizer import Tokenizer

CONTINUED = "\U000f0000to be continued\U000f0001"  # between private-use characters, so that no message says it
TEMPLATE_KEY = "tokenizer.chat_template"
_NO_CALLS = "leave the tools out, or name a template that has calls with --template"


class Opened(Protocol):
    """What a chat needs of a model: its file's keys, its tokenizer, and the plugins it was loaded with."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def registry(self) -> Registry: ...


class JinjaChat:
    """A `sis_core.chat.Chat` by a Jinja template. Immutable and thread-safe.

    A file may have a second template, ``tool_use``, for chats with tools.

    Args:
        name: of the template, for messages.
        stop: texts that end a reply, beside those that the template writes at a turn's end.
        format: how replies are written; by default the template is asked.
    """

    def __init__(
        self, model: Opened, source: str, *, name: str, stop: tuple[str, ...] = (), format: ReplyFormat | None = None
    ) -> None:
        self._stop, self._given_format, self._registry = stop, format, model.registry
        tokenizer, metadata = model.tokenizer, model.metadata
        specials = {
            f"{role}_token": "" if token is None else tokenizer.token_text(token)
            for role, token in (("bos", tokenizer.bos), ("eos", tokenizer.eos))
        }
        self._plain = self._with_tools = WrittenTemplate(source, name=name, specials=specials)
        for_tools = metadata.get(f"{TEMPLATE_KEY}.tool_use")
        if isinstance(for_tools, str) and source == metadata.get(TEMPLATE_KEY):
            self._with_tools = WrittenTemplate(for_tools, name=f"{name}.tool_use", specials=specials)
        self._encoder = Encoder(tokenizer, metadata)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, continue_last: bool = False, **options: Any
    ) -> Rendered:
        """Messages as the model reads them, up to where its reply begins.

        Args:
            continue_last: go on with the last message, an assistant's, instead of beginning a new one.
            options: the template's own, such as ``enable_thinking`` or ``documents``.

        Raises:
            MessageError: a message, tool or option that no template may be given.
            ReplyError: tools are given, and how this model calls them is not known.
            TemplateError: the template refuses them, or fails.
        """
        listed = checked_tools(tools)
        template = self._with_tools if listed else self._plain
        if listed and self._format(template).calls is None:
            raise ReplyError("does not say how tools are called", where=template.name, fix=_NO_CALLS)
        values = template.fitted(checked(messages))
        own = checked_options(options)
        if continue_last:
            _mark_last(values)
        text = template.text(values, listed, add_generation_prompt=not continue_last, **own)
        if continue_last:
            text = _until_mark(text, template.name)
        reply = template.begun(plain(text), values[:-1] if continue_last else values, listed, own)
        stop = (*self._stop, *self._stops(self._format(template)))
        return Rendered(self._encoder.segments(text), tuple(dict.fromkeys(stop)), tuple(listed), reply)

    def parser(self, rendered: Rendered) -> ReplyParser:
        """A parser for the reply to a rendered chat: its text with control tokens spelt out, for they mark calls."""
        template = self._with_tools if rendered.tools else self._plain
        return Parser(self._format(template), rendered.tools, rendered.reply)

    def constraint(self, tools: Sequence[Tool], choice: ToolChoice, rendered: Rendered | None = None) -> Sampler | None:
        """A sampler that holds a reply to the calls that ``choice`` asks for; None where it asks for nothing.

        Args:
            rendered: the chat that is replied to: where its template began a thought, the thought comes to its end
                before the calls. By default as the template begins without options.

        Raises:
            ReplyError: no such tool, or calls in this format cannot be required.
            PluginError: the plugin with the grammar sampler is missing.
        """
        if choice in ("auto", "none"):
            return None
        listed = checked_tools(tools)
        chosen = [tool for tool in listed if choice in ("required", tool["function"]["name"])]
        if not chosen:
            raise ReplyError(f"there is no tool {choice!r} to call", where="tool choice")
        format = self._format(self._with_tools)
        if format.calls is None:
            raise ReplyError("does not say how tools are called", where=self._with_tools.name, fix=_NO_CALLS)
        begun = (rendered or self.render([{"role": "user", "content": "?"}], listed)).reply
        thinking = is_begun(format.reasoning, begun)
        text = CallGrammar(format, chosen, self._encoder.cut, thinking=thinking).text(several=choice == "required")
        sampler: type[Any] = self._registry.get("samplers", "grammar", where="tool choice")
        made: Sampler = sampler(grammar=text)
        return made

    def describe(self) -> str:
        """One line for `sis doctor`: the template, and how replies are written."""
        format = self._format(self._with_tools)
        parts = [self._plain.name, "with a template for tools" if self._with_tools is not self._plain else ""]
        if format.reasoning is not None:
            parts.append(f"thinks between {format.reasoning.open.strip()!r} and {format.reasoning.close.strip()!r}")
        parts.append(f"calls tools as {_spelt(format)!r}" if format.calls is not None else "calls no tools")
        return "; ".join(filter(None, parts))

    def _stops(self, format: ReplyFormat) -> list[str]:
        """Ends of a turn that the vocabulary has no end token for, unless they end a part of the turn as well."""
        inner = format.content.close + (format.reasoning.close if format.reasoning is not None else "")
        ends = [end.strip() for end in format.ends]
        return [end for end in ends if end and end not in inner and not self._encoder.ends(end)]

    def _format(self, template: WrittenTemplate) -> ReplyFormat:
        return template.format if self._given_format is None else self._given_format


def _spelt(format: ReplyFormat) -> str:
    """One call, and what is around all."""
    assert format.calls is not None
    calls = format.calls
    inner = calls.call if not calls.argument else calls.call.replace("{arguments}", calls.argument + "…")
    return "".join(f"{calls.section.open}{inner}{calls.section.close}".split("\n"))


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
