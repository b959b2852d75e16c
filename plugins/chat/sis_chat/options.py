"""What a caller may tell a template beside the messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sis_chat.errors import MessageError

# What the caller gives by other ways, and what the sandbox brings: to name it here would replace the conversation.
RESERVED = frozenset(
    ("messages", "tools", "bos_token", "eos_token", "unk_token", "pad_token", "add_generation_prompt",
     "continue_final_message", "raise_exception", "strftime_now", "namespace", "range", "dict", "cycler", "joiner",
     "self", "loop", "caller", "varargs", "kwargs", "true", "false", "none", "True", "False", "None")
)  # fmt: skip


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the options; MessageError for a name that is not the caller's to give."""
    for name in options:
        if name in RESERVED or name.startswith("_"):
            raise MessageError(f"the option {name!r} is not one of the template's own", where="template options")
    return dict(options)
