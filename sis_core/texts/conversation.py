"""Chats whose past is read once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from sis_core.chat import (
    CallEnd,
    Chat,
    Content,
    Event,
    Finish,
    Message,
    Rendered,
    Reply,
    ReplyParser,
    Tool,
    ToolChoice,
    Usage,
)
from sis_core.closing import Closing
from sis_core.errors import ChatError
from sis_core.loading.checks import check_option, several_texts
from sis_core.sampler import Sampler
from sis_core.texts.known_ids import with_known
from sis_core.texts.prompt_cache import PromptCache
from sis_core.texts.request import Request

if TYPE_CHECKING:
    from sis_core.texts.feeding import SessionStats
    from sis_core.texts.language_model import LanguageModel


class Conversation(Closing):
    """Replies to messages, one after the other, over one cache; used from one thread at a time.

    The messages are the caller's: each call gives all of them, and may have left out, changed or added any. What was
    read or written before is not read again: the cache goes on where the rendered text first differs from what it
    holds. It holds replies under the ids that the model chose, however the tokenizer would spell them.

    Args:
        model: the model; it must stay open.
        chat: how its chats are written.
        max_tokens: what the cache holds, by default and at most one chat of the model's context.
        prompt_cache: where what is read is found again by another conversation; it is written when this one is closed.
    """

    def __init__(
        self,
        model: LanguageModel,
        chat: Chat,
        *,
        max_tokens: int | None = None,
        prompt_cache: PromptCache | None = None,
    ) -> None:
        self.model, self.chat = model, chat
        self._disk = prompt_cache
        self._scheduler = model.scheduler(max_tokens=max_tokens)
        self._ids: list[int] = []  # of the last chat and its reply
        self._stopped = False

    @property
    def n_ctx(self) -> int:
        """Tokens that a chat and its reply may have."""
        return self._scheduler.session.n_ctx

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the last chat with its reply, as they were read and written."""
        return tuple(self._ids)

    @property
    def stats(self) -> SessionStats:
        """What the session did: ``rows`` counts every token that was read."""
        return self._scheduler.session.stats

    def tokens(self, messages: Sequence[Message], tools: Sequence[Tool] = (), **template_options: Any) -> list[int]:
        """The ids that a reply to ``messages`` would begin from."""
        messages = with_system(self.model, messages)
        return self._tokens(self.chat.render(messages, tools, **template_options), messages)

    def reply(self, messages: Sequence[Message], **options: Any) -> Reply:
        """The whole reply; options are those of `stream`."""
        return Reply.of(self.stream(messages, **options))

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        schema: Any = None,
        compact_json: bool = False,
        template_options: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | str = (),
        **options: Any,
    ) -> Generator[Event]:
        """The events of a reply as they come; the last is its `Finish`. One that is closed early is kept as it is.

        Args:
            messages: the chat so far; see `sis_core.chat`.
            tools: what the model may call.
            tool_choice: ``auto``, ``none``, ``required``, or the name of the tool that it must call.
            schema: a JSON schema that the answer fits (a dict, JSON text, or a pydantic model): a ``grammar``
                sampler's; without tools.
            compact_json: with a schema: no white space between the parts.
            template_options: the template's own, such as ``enable_thinking``.
            max_tokens: of the reply; None until the model ends or the context is full.
            options: those of `LanguageModel.request`.

        Raises:
            ChatError: the format cannot express the messages.
            ContextError: they do not fit into the context.
            SisError: what samplers and the model raise.
        """
        check_option("tool_choice", tool_choice, kind=str)
        check_option("template_options", template_options, kind=Mapping, optional=True)
        if tool_choice == "none":
            tools = ()
        if schema is not None and tools:
            raise ChatError(
                "an answer that fits a schema cannot be a call",
                where="schema",
                fix='leave the tools out, or say tool_choice="none"',
            )
        if compact_json and schema is None:
            raise ChatError("changes nothing without a schema", where="compact_json", fix="leave it out")
        messages = with_system(self.model, messages)
        rendered = self.chat.render(messages, tools, **(template_options or {}))
        stops = several_texts("stop", stop)
        request = self.model.request(
            self._tokens(rendered, messages),
            max_tokens=max_tokens,
            stop=(*rendered.stop, *stops),
            spell_special=True,
            **options,
        )
        parser: ReplyParser = self.chat.parser(rendered)
        if schema is not None:
            grammar = self.model.registry.get("samplers", "grammar", where="schema")
            request, parser = constrained(request, grammar(schema=schema, compact_json=compact_json)), _Answer()
        elif tools and (constraint := self.chat.constraint(tools, tool_choice, rendered)) is not None:
            request = constrained(request, constraint)
        return self._run(request, parser)

    def stop(self) -> None:
        """End the reply that is being streamed, or the next, after the step that runs; its reason is ``cancelled``.

        For handlers of signals.
        """
        self._stopped = True

    def close(self) -> None:
        """Write to the prompt cache, where there is one, and free the own. Closing twice is no error."""
        try:
            if self._disk is not None and not self._scheduler.session.closed:
                self._disk.remember(self._scheduler, self._ids)
        finally:
            self._scheduler.close()

    def _tokens(self, rendered: Rendered, messages: Sequence[Message]) -> list[int]:
        if self._disk is not None and not self._ids:
            self._ids = self._disk.recall(self._scheduler, rendered.tokens)
        replies = {i for i, message in enumerate(messages) if message.get("role") == "assistant"}
        return with_known(rendered, self._ids, replies, self.model.tokenizer)

    def _run(self, request: Request, parser: ReplyParser) -> Generator[Event]:
        ids = self._ids = list(request.prompt)
        n_prompt, n_cached, called = len(ids), 0, False
        reason = "cancelled"
        number = self._scheduler.add(request)
        try:
            while self._scheduler.busy and not self._stopped:
                for piece in self._scheduler.step():
                    if piece.error is not None:
                        raise piece.error
                    n_cached = piece.n_cached
                    if piece.token is not None:
                        ids.append(piece.token)
                    reason = piece.finish_reason or reason
                    for event in parser.push(piece):
                        called |= isinstance(event, CallEnd)
                        yield event
        finally:
            self._stopped = False
            self._scheduler.cancel(number, keep=True)
        for event in parser.end():
            called |= isinstance(event, CallEnd)
            yield event
        if called and reason in ("end", "stop"):
            reason = "tool_calls"
        yield Finish(reason, Usage(n_prompt, n_cached, len(ids) - n_prompt))


class _Answer:
    """A parser for a reply that is nothing but an answer."""

    def push(self, piece: str) -> list[Event]:
        return [Content(str(piece))] if piece else []

    def end(self) -> list[Event]:
        return []


def and_close(events: Iterator[Event], conversation: Conversation) -> Generator[Event]:
    """The events, and the end of the conversation that they come from."""
    with conversation:
        yield from events


def with_system(model: LanguageModel, messages: Sequence[Message]) -> Sequence[Message]:
    """Messages after the system message that the model's source has set, where they bring none."""
    system = model.preset.system
    if not system or any(message.get("role") in ("system", "developer") for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def constrained(request: Request, sampler: Sampler) -> Request:
    """The request with one more sampler, at its place among the others: before whatever truncates."""
    samplers = list(request.samplers)
    later = (i for i, other in enumerate(samplers) if other.order > sampler.order)
    samplers.insert(next(later, len(samplers)), sampler)
    return evolve(request, samplers=samplers)
