"""What a list of events says, put together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sis_core.chat import CallEnd, CallStart, Content, Event, Reasoning


def calls_of(events: Iterable[Event]) -> list[tuple[str, Any]]:
    """Names and arguments of the calls that are complete."""
    names = {event.index: event.name for event in events if isinstance(event, CallStart)}
    found = []
    for event in events:
        if isinstance(event, CallEnd):
            try:
                found.append((names[event.index], json.loads(event.arguments)))
            except ValueError:
                found.append((names[event.index], event.arguments))
    return found


def text_of(events: Iterable[Event], kind: type[Content] | type[Reasoning]) -> str:
    """All text of one kind."""
    return "".join(event.text for event in events if isinstance(event, kind))
