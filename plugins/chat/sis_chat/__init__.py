"""Chats by Jinja templates: the one in a model's file, one that the user gives, or one that has a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core import hookimpl
from sis_core.chat import ChatFormat

if TYPE_CHECKING:
    import click


@hookimpl
def sis_register_chat_formats() -> list[ChatFormat]:
    from sis_chat.formats import all_formats

    return all_formats()


@hookimpl
def sis_register_commands() -> list[click.Command]:
    from sis_chat.command import command as render
    from sis_chat.terminal.command import command as chat

    return [chat, render]
