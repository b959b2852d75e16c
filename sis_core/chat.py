"""Chats: how messages become what a model reads, and how what it says becomes messages again.

A message is a mapping as OpenAI's chat API has it: ``role`` (system, developer, user, assistant or tool), ``content``
(a text, a list of parts, or None), and for assistants ``tool_calls`` and ``reasoning_content``. A tool is a mapping
``{"type": "function", "function": {"name", "description", "parameters"}}``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from sis_core.sampler import Sampler
    from sis_core.texts.language_model import LanguageModel

Message = Mapping[str, Any]
Tool = Mapping[str, Any]
ToolChoice = Literal["auto", "required", "none"] | str
"""Whether the model may, must or must not call a tool; any other text is the name of the one it must call."""


@frozen
class Segment:
    """A part of a rendered chat.

    Attributes:
        text: as a person would read it.
        tokens: its ids. Control tokens are read only where the template wrote the text.
        message: index of the message that it quotes, or None where the template speaks.
    """

    text: str
    tokens: tuple[int, ...]
    message: int | None = None


@frozen
class Rendered:
    """Messages as a model reads them.

    Attributes:
        segments: in order; joined, their tokens are the prompt.
        stop: texts that end a reply, where the model's end tokens do not say it all.
        tools: what the reply may call.
        reply: what the template already wrote of the reply: a thinking tag, or the turn that is to be continued.
    """

    segments: tuple[Segment, ...]
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    reply: str = ""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments)

    @property
    def tokens(self) -> tuple[int, ...]:
        """All token ids."""
        return tuple(token for segment in self.segments for token in segment.tokens)


@frozen
class Reasoning:
    """A piece of what a model thinks before it answers."""

    text: str


@frozen
class Content:
    """A piece of the answer."""

    text: str


@frozen
class CallStart:
    """A tool call begins. ``index`` counts the calls of a reply from 0; ``id`` is unique within the chat."""

    index: int
    id: str
    name: str


@frozen
class CallArguments:
    """A piece of a call's arguments, as JSON text; the pieces of one call, joined, are the whole object."""

    index: int
    text: str


@frozen
class CallEnd:
    """A tool call is complete. ``arguments`` is its JSON text."""

    index: int
    arguments: str


@frozen
class Usage:
    """Tokens of a reply: of its prompt, of these already known, and generated."""

    n_prompt: int
    n_cached: int
    n_generated: int


@frozen
class Finish:
    """The reply is over: why (a finish reason of texts, or ``tool_calls``), and what it took."""

    reason: str
    usage: Usage | None = None


Event = Reasoning | Content | CallStart | CallArguments | CallEnd | Finish


@frozen
class Reply:
    """A whole reply.

    Attributes:
        message: the assistant's message, to be put after those that it answers: ``role``, ``content``, and where there
            are any ``reasoning_content`` and ``tool_calls``.
    """

    message: Message
    finish_reason: str
    usage: Usage | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Reply:
        """Put the events of one reply together. A call that is not complete is left out."""
        thought: list[str] = []
        said: list[str] = []
        calls: dict[int, dict[str, Any]] = {}
        finish = Finish("error")
        for event in events:
            match event:
                case Reasoning(text):
                    thought.append(text)
                case Content(text):
                    said.append(text)
                case CallStart(index, id, name):
                    calls[index] = {"id": id, "type": "function", "function": {"name": name}}
                case CallEnd(index, arguments):
                    calls[index]["function"]["arguments"] = arguments
                case Finish():
                    finish = event
        whole = [call for call in calls.values() if "arguments" in call["function"]]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said)}
        if thought:
            message["reasoning_content"] = "".join(thought)
        if whole:
            message["tool_calls"] = whole
        return cls(message, finish.reason, finish.usage)


class ReplyParser(Protocol):
    """Follows one reply. What it returns, joined, does not depend on how the text was cut."""

    def push(self, piece: str) -> list[Event]:
        """What one more piece of the reply's text makes certain."""

    def end(self) -> list[Event]:
        """What was held back, when nothing more comes; never a `Finish`: only who generates knows why it ended."""


class Chat(Protocol):
    """A format opened for one model. Immutable and thread-safe."""

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = (), **options: Any) -> Rendered:
        """Messages as the model reads them, up to where its reply begins.

        ``options`` are the template's own (such as ``enable_thinking``); ``continue_last=True`` goes on with the last
        message, an assistant's. ChatError names the message or option that the format cannot express.
        """

    def parser(self, rendered: Rendered) -> ReplyParser:
        """A parser for the reply to a rendered chat."""

    def constraint(self, tools: Sequence[Tool], choice: ToolChoice, rendered: Rendered | None = None) -> Sampler | None:
        """A sampler that holds a reply to the calls that ``choice`` asks for; None where it asks for nothing.

        ``rendered`` is the chat that is replied to: a thought that its template began comes to an end before the calls.
        """

    def describe(self) -> str:
        """One line for `sis doctor`: which template, what it can do, and how replies are read."""


class ChatFormat(ABC):
    """One way to write chats.

    Attributes:
        name: unique among formats: what ``--template`` calls it.
        score: who is asked first when no format is named; 0 or less answers only to its name.
    """

    name: ClassVar[str]
    score: ClassVar[int] = 0

    @abstractmethod
    def open(self, model: LanguageModel, template: str | None) -> Chat | None:
        """The format for a model, or None where the model's file does not ask for it.

        Args:
            template: the text of a template that takes the place of the file's own.

        Raises:
            ChatError: the template is damaged or asks for what is not allowed.
        """
