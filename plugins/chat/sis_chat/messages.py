"""Messages as a caller gives them, made into what templates expect, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The names that APIs give to what a model thought. The first is the one that most templates read, "thinking" gpt-oss'.
REASONING = ("reasoning_content", "thinking", "reasoning")


def normalised(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of ``messages`` without keys of no value, with what was thought under every name that templates read.

    Source: what transformers does to messages before it renders them.
    """
    made = []
    for message in messages:
        known = {key: value for key, value in message.items() if value is not None}
        thought = next((known[name] for name in REASONING if name in known), None)
        if thought is not None:
            known = {"thinking": thought, **known, "reasoning_content": thought}
        made.append(known)
    return made
