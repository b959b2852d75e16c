"""Conversations as a screenplay: a model that was never taught to chat goes on with the next line of dialogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from sis_core import hookimpl
from sis_core.chat import Chat, ChatFormat, Content, Event, Message, Rendered, ReplyParser, Segment, Tool, ToolChoice
from sis_core.errors import ChatError
from sis_core.sampler import Sampler
from sis_core.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sis_core.texts.language_model import LanguageModel

SPEAKERS = {"system": "SCENE", "user": "VISITOR", "assistant": "HOST"}


class PlainParser:
    """Everything is content, but for the space after the speaker's name."""

    def __init__(self) -> None:
        self._begun = False

    def push(self, piece: str) -> list[Event]:
        text = piece if self._begun else piece.lstrip()
        self._begun = self._begun or bool(text)
        return [Content(text)] if text else []

    def end(self) -> list[Event]:
        return []


@frozen
class Screenplay:
    """A chat for one tokenizer. Immutable, so any number of threads may use it."""

    tokenizer: Tokenizer

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = (), **options: Any) -> Rendered:
        if tools or options:
            raise ChatError("a screenplay knows neither tools nor options", where="screenplay")
        segments = []
        for i, message in enumerate(messages):
            role, text = (message.get("role"), message.get("content")) if message else (None, None)
            speaker = SPEAKERS.get(str(role))
            if speaker is None or not isinstance(text, str):
                raise ChatError(f"a screenplay has no line for a {role}", where=f"messages[{i}]")
            segments += [self._segment(f"{speaker}:", None), self._segment(f" {text}\n\n", i)]
        segments.append(self._segment("HOST:", None))
        first = Segment("", tuple(self.tokenizer.encode("")))  # what the model wants at the beginning of a text
        return Rendered((first, *segments), stop=("\n\nVISITOR:", "\n\nHOST:"))

    def _segment(self, text: str, message: int | None) -> Segment:
        """Encoded without control tokens: whatever a visitor writes stays text."""
        return Segment(text, tuple(self.tokenizer.encode(text, add_special=False)), message)

    def parser(self, rendered: Rendered) -> ReplyParser:
        return PlainParser()

    def constraint(self, tools: Sequence[Tool], choice: ToolChoice, rendered: Rendered | None = None) -> Sampler | None:
        return None

    def describe(self) -> str:
        return "a screenplay of SCENE, VISITOR and HOST"


class ScreenplayFormat(ChatFormat):
    """Answers to its name only: no file asks for it."""

    name: ClassVar[str] = "screenplay"

    def open(self, model: LanguageModel, template: str | None) -> Chat | None:
        return Screenplay(model.tokenizer) if template is None else None


@hookimpl
def sis_register_chat_formats() -> list[ChatFormat]:
    return [ScreenplayFormat()]
