"""Conversations in files that a person can read, and nobody else."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sis_core.chat import Message
from sis_core.errors import ChatError

SUFFIX = ".json"


class Saved(NamedTuple):
    """A conversation as a file has it."""

    messages: list[Message]
    system: str | None


class Drawer:
    """The folder of a person's conversations, and of what was typed.

    Args:
        folder: made when first written to, for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "chats"
        self.typed = folder / "typed"

    def new(self) -> Path:
        """The path of a conversation that begins now."""
        return self.folder / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}{SUFFIX}"

    def last(self) -> Path | None:
        """The conversation that was written last."""
        found = [path for path in self.folder.glob(f"*{SUFFIX}") if path.is_file()] if self.folder.is_dir() else []
        return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)

    def open(self) -> None:
        """Make the folder, and the file for what is typed; ChatError when it cannot be."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.typed, os.O_WRONLY | os.O_CREAT, 0o600))
            self.typed.chmod(0o600)
        except OSError as error:
            raise ChatError(
                f"cannot be written: {error.strerror}", where=str(self.folder), fix="talk with --no-history"
            ) from None


def write(path: Path, messages: Sequence[Message], system: str | None, model: str) -> None:
    """Write a conversation, whole or not at all, for its owner alone. ChatError when that cannot be done."""
    heading: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    text = json.dumps({"model": model, "messages": [*heading, *messages]}, ensure_ascii=False, indent=2)
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
        try:
            with open(number, "w", encoding="utf-8", newline="\n") as file:
                file.write(f"{text}\n")
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise ChatError(f"cannot be written: {error.strerror}", where=str(path)) from None


def read(path: Path) -> Saved:
    """A conversation: an object with ``messages``, or a list of them. ChatError for anything else."""
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ChatError(f"cannot be read: {reason}", where=str(path)) from None
    messages = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
    ):
        raise ChatError("is not a conversation: it has no list of messages", where=str(path))
    system = None
    if messages and messages[0]["role"] == "system":
        system = str(messages.pop(0).get("content"))
    return Saved(messages, system)
