"""What is said between a person and a model, and how it goes on. Nothing here knows of a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from sis_core.chat import Content, Event, Finish, Message, Reply, Tool, Usage
from sis_core.errors import ChatError, SisError, suggest
from sis_core.texts.chain_text import sampler_options

if TYPE_CHECKING:
    from sis_core.texts.conversation import Conversation

FOR_A_REPLY = 4  # one part of so many of the context is kept free for the next reply


@frozen
class Speed:
    """What the last reply took.

    Attributes:
        prompt_seconds: until its first event.
        seconds: from then on.
    """

    usage: Usage
    reason: str
    prompt_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of the reply alone."""
        return (self.usage.n_generated - 1) / self.seconds if self.usage.n_generated > 1 and self.seconds else 0.0


class Talk:
    """One conversation: its messages, and the options of the next reply.

    Args:
        conversation: what makes the replies.
        options: of `sis_core.texts.conversation.Conversation.stream`.
        tell: called with a line that the person should see.

    Attributes:
        messages: all that was said, without the system message.
        first: the first message that the model still reads; those before it fell out of the context.
        speed: of the last reply.
    """

    def __init__(
        self,
        conversation: Conversation,
        options: dict[str, Any],
        *,
        system: str | None = None,
        tools: Sequence[Tool] = (),
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.conversation, self.options, self.system, self.tools = conversation, options, system, list(tools)
        self._tell = tell
        self.messages: list[Message] = []
        self.first = 0
        self.speed: Speed | None = None

    def begin(self, messages: Sequence[Message] = (), system: str | None = None) -> None:
        """Start anew, or from what was said elsewhere."""
        self.messages, self.first, self.speed = list(messages), 0, None
        self.system = system

    def say(self, text: str) -> None:
        """The person's next message."""
        self.messages.append({"role": "user", "content": text})

    def answer_call(self, call: Message, result: str) -> None:
        """The result of a tool call."""
        name = call["function"]["name"]
        self.messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": result})

    def undo(self) -> str:
        """Take the last turn back; the person's text of it. ChatError when there is none."""
        at = next((i for i in reversed(range(len(self.messages))) if self.messages[i]["role"] == "user"), None)
        if at is None:
            raise ChatError("nothing was said yet", where="/undo")
        text = str(self.messages[at]["content"])
        del self.messages[at:]
        self.first = min(self.first, len(self.messages))
        return text

    def reply(self) -> Iterator[Event]:
        """The events of the model's next reply, which joins the messages at its end, also when it was stopped; not when
        it was stopped before it said anything.

        Where it fails, the messages are as before. Turns that have no room any more fall out, the oldest first.
        """
        self._make_room()
        events: list[Event] = []
        began = first = time.perf_counter()
        for event in self._events():
            if not events:
                first = time.perf_counter()
            events.append(event)
            yield event
        reply, ended = Reply.of(events), time.perf_counter()
        if reply.usage is not None:
            self.speed = Speed(reply.usage, reply.finish_reason, first - began, ended - first)
        if reply.finish_reason != "cancelled" or len(events) > 1:
            self.messages.append(reply.message)

    @property
    def n_left(self) -> int:
        """Tokens that the context still has room for; none where the chat has outgrown it."""
        return max(0, self.conversation.n_ctx - len(self.conversation.ids))

    def set(self, name: str, text: str | None) -> None:
        """Change an option of the next replies by its name on the command line; None takes it back. SisError says what
        is wrong with it."""
        name = name.lstrip("-").replace("-", "_")
        kinds: dict[str, type] = {"max_tokens": int, "seed": int, "sampler": str, "samplers": str}
        kinds |= {option.name: option.field.type or str for option in sampler_options(self.conversation.model.registry)}
        if name not in kinds:
            raise SisError(f"there is no option {name!r}{suggest(name, sorted(kinds))}", where="/set")
        changed = {key: value for key, value in self.options.items() if key != name}
        if text is not None:
            changed[name] = _value(name, kinds[name], text)
        self.conversation.model.request([0], **changed)  # checks it
        self.options = changed

    def _read(self) -> list[Message]:
        """What the model reads."""
        system: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + self.messages[self.first :]

    def _events(self) -> Iterator[Event]:
        """The events of a reply. Where it fills the context, it goes on when older turns fell out."""
        said, only_said, n_generated = "", True, 0
        begun: list[Message] = []
        options = dict(self.options)
        while True:
            finish = Finish("error")
            for event in self.conversation.stream([*self._read(), *begun], tools=self.tools, **options):
                match event:
                    case Finish():
                        finish = event
                        continue
                    case Content(text):
                        said += text
                    case _:
                        only_said = False
                yield event
            if finish.usage is not None:
                n_generated += finish.usage.n_generated
                finish = evolve(finish, usage=evolve(finish.usage, n_generated=n_generated))
            begun = [{"role": "assistant", "content": said}]
            if finish.reason != "context" or not (said and only_said and self._make_room(begun)):
                yield finish
                return
            options["template_options"] = {**self.options.get("template_options", {}), "continue_last": True}
            if (most := self.options.get("max_tokens")) is not None:
                options["max_tokens"] = most - n_generated

    def _make_room(self, begun: Sequence[Message] = ()) -> bool:
        """Let the oldest turns fall out until a reply, of which some may have ``begun``, has room; whether any did."""
        if self.conversation.model.request([0], **self.options).outgrows:
            return False  # the cache lets go of what is old, and the messages stay
        n_ctx, before, dropped = self.conversation.n_ctx, self.first, 0
        most = n_ctx - min(n_ctx // FOR_A_REPLY, self.options.get("max_tokens") or n_ctx)
        while (n := len(self.conversation.tokens([*self._read(), *begun], self.tools))) > most:
            later = (i for i in range(self.first + 1, len(self.messages)) if self.messages[i]["role"] == "user")
            if (following := next(later, None)) is None:
                break
            self.first, dropped = following, dropped + 1
        if n > n_ctx:  # it will be refused: nothing falls out for that
            self.first = before
            return False
        if dropped:
            turns = "turn falls" if dropped == 1 else f"{dropped} turns fall"
            self._tell(f"the context of {n_ctx} tokens is full: the oldest {turns} out")
        return dropped > 0


def _value(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise SisError(f"is {text!r}, but must be true or false", where=f"/set {name}")
        return text.lower() == "true"
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise SisError(f"is {text!r}, which is no number", where=f"/set {name}") from None
