"""What can go wrong with a conversation."""

from __future__ import annotations

from sis_core.errors import ChatError


class TemplateError(ChatError):
    """A chat template that is not one, asks for what it must not have, costs too much, or refuses the messages."""


class MessageError(ChatError):
    """Messages, tools or options that no chat template may be given."""


class ReplyError(ChatError):
    """A reply, or a way to write replies, that cannot be read."""
