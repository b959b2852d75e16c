"""The loop of ``sis chat``: read a message or a command, show the reply, keep the conversation."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sis_chat.terminal import commands, files
from sis_chat.terminal.echo import no_echo
from sis_chat.terminal.reading import Input
from sis_chat.terminal.screen import Page
from sis_chat.terminal.talk import Talk
from sis_core.cli.streams import printable, say
from sis_core.errors import SisError

log = logging.getLogger(__name__)

PROMPT, RESULT = "> ", "{name} returns> "


class Program:
    """A person at a terminal, or a script in a pipe.

    Args:
        page: makes what shows one reply.
        path: the file that the conversation is kept in, or None.
        tell: shows a line that is not the model's.
        interactive: whether somebody sits there: errors then are told and not raised, and Ctrl-C stops a reply.

    Attributes:
        given: what the next message begins with.
    """

    def __init__(
        self,
        talk: Talk,
        input: Input,
        page: Callable[[], Page],
        path: Path | None,
        *,
        tell: Callable[[str], None] = say,
        interactive: bool,
    ) -> None:
        self.talk, self.tell, self.given = talk, tell, ""
        self.input, self._page, self._path, self._interactive = input, page, path, interactive

    def run(self) -> None:
        """Until there is no more input."""
        while True:
            given, self.given = self.given, ""
            try:
                text = self.input.read(PROMPT, given).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.tell("Ctrl-D leaves")
                continue
            if not text:
                continue
            try:
                if text.startswith("/") and not text.startswith("//"):
                    commands.run(self, text)
                else:
                    self.send(text.removeprefix("/"))
            except EOFError:
                return
            except (SisError, KeyboardInterrupt) as error:
                if not self._interactive:
                    raise
                self.tell(str(error) or "given up")

    def send(self, text: str) -> None:
        """A message, the reply to it, and the results of the tools that the reply calls.

        When the reply fails, or is stopped before it begins, the message is taken back, and offered for the next.
        """
        self.talk.say(text)
        try:
            while calls := self._reply():
                for call in calls:
                    name = call["function"]["name"]
                    self.talk.answer_call(call, self.input.read(RESULT.format(name=printable(name))))
            if self.talk.messages[-1]["role"] != "assistant":
                self.given = self.talk.undo()
        except (SisError, EOFError, KeyboardInterrupt):
            self.given = self.talk.undo()
            raise
        finally:
            self.keep()

    def keep(self) -> None:
        """Write the conversation to its own file."""
        if self._path is not None and (self.talk.messages or self._path.exists()):
            self.write(self._path)

    def write(self, path: Path) -> None:
        """Write the conversation to a file."""
        files.write(path, self.talk.messages, self.talk.system, self.talk.conversation.model.path.name)

    def load(self, path: Path) -> None:
        """Go on with what is in a file."""
        saved = files.read(path)
        self.talk.begin(saved.messages, saved.system)
        self.tell(f"{len(saved.messages)} messages from {path.name}")

    def _reply(self) -> list[dict[str, dict[str, str]]]:
        """Show one reply; the calls that it makes."""
        with self._stoppable(), self._page() as page:
            for event in self.talk.reply():
                page.show(event)
        if self._interactive and (speed := self.talk.speed) is not None:
            ended = {"cancelled": "; stopped", "length": "; the limit of tokens", "context": "; the context is full"}
            self.tell(
                f"{speed.usage.n_generated} tokens, {speed.tokens_per_second:.1f}/s; "
                f"{self.talk.n_left} of {self.talk.conversation.n_ctx} left{ended.get(speed.reason, '')}"
            )
        calls: list[dict[str, dict[str, str]]] = self.talk.messages[-1].get("tool_calls", [])
        return calls

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Where Ctrl-C stops a reply after the step that runs."""
        if not self._interactive:
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.talk.conversation.stop()

        before = signal.signal(signal.SIGINT, stop)
        try:
            with no_echo():
                yield
        finally:
            signal.signal(signal.SIGINT, before)
