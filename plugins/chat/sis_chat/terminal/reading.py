"""Where a person's messages come from: a prompt with history and editing on a terminal, lines from anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sis_core.errors import SourceError

GOES_ON = "\\"  # at the end of a line: the message has another


class Input(Protocol):
    """Messages, one at a time."""

    def read(self, prompt: str, given: str = "") -> str:
        """The next message, which may begin as ``given``. EOFError when there is none, KeyboardInterrupt when it was
        given up."""


class Lines:
    """Standard input, a message a line; one that ends in a backslash goes on with the next."""

    def read(self, prompt: str, given: str = "") -> str:
        """The next message; EOFError at the end, SourceError for what is not UTF-8."""
        lines: list[str] = []
        while True:
            raw = sys.stdin.buffer.readline()
            try:
                line = raw.decode("utf-8-sig" if not lines else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise SourceError(f"is not UTF-8: {error.reason}", where="standard input") from None
            if not raw and not lines:
                raise EOFError
            if raw and line.endswith(GOES_ON):
                lines.append(line.removesuffix(GOES_ON))
                continue
            return "\n".join([*lines, line])


class Prompt:
    """A line to type on, with history, completion of commands, and more lines by Alt-Enter or a backslash.

    Args:
        history: the file that keeps what was typed, or None.
        words: what is completed at the beginning.
    """

    def __init__(self, history: Path | None, words: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

        keys = KeyBindings()

        @keys.add("enter")
        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text_before_cursor.endswith(GOES_ON):
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory() if history is None else FileHistory(str(history)),
            key_bindings=keys,
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "." * (width - 1) + " ",
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
        )

    def read(self, prompt: str, given: str = "") -> str:
        """The next message."""
        return self._session.prompt(prompt, default=given)
