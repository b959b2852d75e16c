"""The texts that are written: what models are asked, and edits out of the history of a repository."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, keep
from sis_core.texts.request import Request

PARAGRAPH = (
    "The keeper of the lighthouse at Saint Anne rose every morning at four to wind the clockwork that turned the lamp. "
    "Her name was Margaret Holloway, and she had kept the light for thirty-one years without missing a single night. "
    "On the first of November a storm broke the glass of the lantern room, and she held a blanket against the wind "
    "until the glazier came from the village in the early afternoon."
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email address": {"type": "string", "maxLength": 30},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 24},
                "city": {"type": "string", "maxLength": 16},
                "postal code": {"type": "string", "pattern": "^[0-9]{5}$"},
            },
            "required": ["street", "city", "postal code"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "email address", "address"],
    "additionalProperties": False,
}
COPYING: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": (f"Repeat this text word for word.\n\n{PARAGRAPH}", {"temperature": 0.0}),
    "rewrite": (f"Repeat this text, but call the keeper Helen Marsh.\n\n{PARAGRAPH}", {"temperature": 0.0}),
}
JSON: dict[str, tuple[str, dict[str, Any]]] = {
    "json": ("Invent a person, as JSON.", {"temperature": 0.7, "schema": SCHEMA, "compact_json": True}),
}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("Why is the sky blue, and why is it red in the evening?", {"temperature": 0.7}),
    "story": ("Tell a story about a hen and a lighthouse.", {"temperature": 0.7}),
}
BEGINNINGS = ("Once", "The hen", "A boy", "In the morning", "She said", "There was", "One day", "The sea")


@attrs.frozen
class Replays(Sampler):
    """Says a text that somebody wrote."""

    name = "replays"
    order = 900
    tokens: tuple[int, ...] = ()

    def start(self, context: SamplerContext) -> SamplerState:
        return _Replaying(self.tokens)


class _Replaying(SamplerState):
    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens, self.at = tokens, 0

    def apply(self, logits: F32) -> None:
        keep(logits, np.array([self.tokens[self.at]]))

    def accept(self, token: int) -> None:
        self.at += 1


@attrs.frozen
class _Chosen(Sampler):
    """A sampler that does not say what it forces, so that every token takes a step."""

    name = "chosen"
    sampler: Sampler

    def start(self, context: SamplerContext) -> SamplerState:
        return _Choosing(self.sampler.start(context))


class _Choosing(SamplerState):
    def __init__(self, state: SamplerState) -> None:
        self.apply, self.accept = state.apply, state.accept  # type: ignore[method-assign]

    def apply(self, logits: F32) -> None: ...

    def accept(self, token: int) -> None: ...


def token_by_token(request: Request) -> Request:
    """The same text, with a step for each token that its grammar forces."""
    return attrs.evolve(request, samplers=[_Chosen(s) if s.name == "grammar" else s for s in request.samplers])


def edits(repository: str, n: int, least: int = 1500, most: int = 6000) -> Iterator[tuple[str, str]]:
    """Files before and after a change of at most a third of their lines, the newest first."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", repository, *arguments]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout

    found = 0
    for line in git("log", "--no-merges", "--format=%H", "-n", "2000").split():
        for stat in git("show", "--numstat", "--diff-filter=M", "--format=", line).splitlines():
            added, removed, path = stat.split("\t")
            if "-" in (added, removed) or not 2 <= int(added) + int(removed) <= 40:
                continue
            old, new = git("show", f"{line}~:{path}"), git("show", f"{line}:{path}")
            changed = int(added) + int(removed)
            if least <= len(new) <= most and least <= len(old) <= most and 3 * changed <= 2 * new.count("\n"):
                yield old, new
                found += 1
                break
        if found == n:
            return
