"""`check_chat_format`: what every chat format must keep to, however its chats look."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from sis_core.chat import Chat, ChatFormat, Content, Event, Finish, Message, Reasoning, Rendered, Segment
from sis_core.errors import SisError

CONTROL = 3  # `tokenizer.ggml.token_type` of GGUF
MESSAGES: tuple[Message, ...] = (
    {"role": "user", "content": "What sings in the hedge?"},
    {"role": "assistant", "content": "A wren."},
    {"role": "user", "content": "And in the oak, üöä 木 🌳?"},
)
REPLIES = ("An owl.", "", "Two lines,\n\nand <b>signs</b> {\"a\": [1]} 木🌳.\n")  # fmt: skip
BAD: tuple[Any, ...] = (
    [],
    [{}],
    [{"role": "nobody we know\n", "content": "x"}],
    [{"role": "user", "content": 3}],
    [{"role": "user"}],
    [None],
)
"""Messages that are none. A format may express them or refuse them, but not fall over them."""


def check_chat_format(
    format: ChatFormat, model: Any, /, *, template: str | None = None, replies: Sequence[str] = REPLIES
) -> None:
    """Hold a chat format to the contract of `sis_core.chat`.

    Args:
        model: one for which the format answers.
        template: the text of a template, where the format needs one.
        replies: texts that a model may answer; what their events say must not depend on how they are cut.

    Raises:
        AssertionError: naming the format and the fault.
    """
    check = _Check(format, model)
    chat = check.opened(template)
    rendered = check.rendered(chat)
    check.control_tokens(chat, rendered)
    check.refusals(chat)
    for reply in replies:
        check.reply(chat, rendered, reply)
    check.rest(chat)


class _Check:
    def __init__(self, format: ChatFormat, model: Any) -> None:
        self._format, self._model = format, model
        self._title = f"chat format {getattr(format, 'name', type(format).__name__)}"

    def fail(self, fault: str) -> NoReturn:
        raise AssertionError(f"{self._title}: {fault}")

    def opened(self, template: str | None) -> Chat:
        """Name and score, and a chat for the model."""
        name = getattr(self._format, "name", None)
        if not isinstance(name, str) or not name or any(character.isspace() for character in name):
            self.fail(f"its name is {name!r}, which nobody can type after --template")
        chat = self._format.open(self._model, template)
        if chat is None:
            self.fail("does not answer for the model: give check_chat_format one for which it does")
        return chat

    def rendered(self, chat: Chat) -> Rendered:
        """Segments that spell the chat, the same every time and in every thread, from messages that stay."""
        before = copy.deepcopy(MESSAGES)
        rendered = chat.render(MESSAGES)
        if before != MESSAGES:
            self.fail("changed the messages that it was given")
        if not isinstance(rendered, Rendered) or not all(isinstance(s, Segment) for s in rendered.segments):
            self.fail(f"renders a {type(rendered).__name__}, not a Rendered of Segments")
        with ThreadPoolExecutor(4) as pool:
            if any(other != rendered for other in pool.map(lambda _: chat.render(MESSAGES), range(8))):
                self.fail("renders another chat when asked again")
        n_vocab = self._model.tokenizer.n_vocab
        if any(not 0 <= token < n_vocab for token in rendered.tokens):
            self.fail(f"gives ids outside the vocabulary of {n_vocab}")
        if not rendered.tokens:
            self.fail("renders no tokens")
        for i, message in enumerate(MESSAGES):
            quoted = "".join(segment.text for segment in rendered.segments if segment.message == i)
            if message["content"].strip() not in quoted:
                self.fail(f"no segment quotes message {i}: Segment.message says whose text it is")
        if any(s.message is not None and not 0 <= s.message < len(MESSAGES) for s in rendered.segments):
            self.fail("a segment quotes a message that there is not")
        if not all(isinstance(stop, str) and stop for stop in rendered.stop):
            self.fail(f"stops replies at {rendered.stop!r}, which are not texts")
        return rendered

    def control_tokens(self, chat: Chat, rendered: Rendered) -> None:
        """What a user writes is text, also where it spells a control token."""
        names = self._control_names()
        if not names:
            return
        evil = [*MESSAGES[:-1], {"role": "user", "content": " ".join(names.values())}]
        usual = Counter(token for token in rendered.tokens if token in names)
        found = Counter(token for token in chat.render(evil).tokens if token in names)
        if more := found - usual:
            spelt = names[next(iter(more))]
            self.fail(f"reads {spelt!r} in a message as that control token: encode what users write as text")

    def _control_names(self) -> dict[int, str]:
        types = self._model.metadata.get("tokenizer.ggml.token_type") or ()
        text = self._model.tokenizer.token_text
        return {token: text(token) for token, kind in enumerate(types) if kind == CONTROL and text(token).strip()}

    def refusals(self, chat: Chat) -> None:
        for messages in BAD:
            try:
                chat.render(messages)
            except SisError as error:
                if not error.what:
                    self.fail(f"refuses the messages {messages!r} without saying why")
            except Exception as error:
                self.fail(f"raised {type(error).__name__}, not a ChatError, for the messages {messages!r}: {error}")

    def reply(self, chat: Chat, rendered: Rendered, reply: str) -> None:
        """Events that say the same at every cut; what is neither thought nor called is content."""
        whole = self.events(chat, rendered, [reply])
        for pieces in (list(reply), [reply[i : i + 3] for i in range(0, len(reply), 3)], ["", reply, ""]):
            if self.events(chat, rendered, pieces) != whole:
                self.fail(f"the events of the reply {reply!r} depend on how it is cut")
        text = "".join(event.text for event in whole if isinstance(event, Content | Reasoning))
        if text.split() != reply.split() and all(isinstance(event, Content | Reasoning) for event in whole):
            self.fail(f"the reply {reply!r} is read as {text!r}")

    def events(self, chat: Chat, rendered: Rendered, pieces: Sequence[str]) -> list[Event]:
        """The events of a reply, neighbours of one kind joined."""
        parser = chat.parser(rendered)
        found = [event for piece in pieces for event in parser.push(piece)] + parser.end()
        if any(isinstance(event, Finish) for event in found):
            self.fail("a parser says Finish, which only who generates can know")
        joined: list[Event] = []
        for event in found:
            last = joined[-1] if joined else None
            if isinstance(event, Content) and isinstance(last, Content):
                joined[-1] = Content(last.text + event.text)
            elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
                joined[-1] = Reasoning(last.text + event.text)
            else:
                joined.append(event)
        return joined

    def rest(self, chat: Chat) -> None:
        if chat.constraint((), "auto") is not None or chat.constraint((), "none") is not None:
            self.fail("constrains replies that need not call a tool")
        described = chat.describe()
        if not isinstance(described, str) or not described.strip() or "\n" in described:
            self.fail(f"describes itself as {described!r}, which is not one line")
