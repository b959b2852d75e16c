"""Guesses that are right as often as a test wants, and what becomes of texts with and without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import attrs
from test_forced import known

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.texts.drafting import NOBODY, Drafting
from sis_core.texts.feeding import SessionStats
from sis_core.texts.request import Request
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import Session


class Sessions(Protocol):
    """A model, or what stands for one."""

    def session(self, **room: Any) -> Session: ...


CHAINS = [
    "temperature=1.2",
    "greedy",
    "penalties:repeat_penalty=1.4;top-k=30;temperature=0.9",
    "top-p=0.9;min-p=0.02;temperature=1.5",
    "mirostat:tau=4",
    "dry;xtc:probability=0.6,threshold=0.02;temperature=1",
]


@attrs.frozen
class Knows(Drafter):
    """Guesses what each text will be, with a mistake in every so many tokens: acceptance as a test wants it."""

    name = "knows"

    texts: Sequence[Sequence[int]] = ()
    most: int = 6
    wrong_every: int = 3
    n_vocab: int = 250

    def start(self, context: DraftContext) -> DraftState:
        return Knowing(self, list(context.tokens))


class Knowing(DraftState):
    def __init__(self, options: Knows, tokens: list[int]) -> None:
        self.options, self.tokens = options, tokens

    def propose(self, k: int) -> list[int]:
        n, options = len(self.tokens), self.options
        text = next((text for text in options.texts if list(text[:n]) == self.tokens), ())
        return [
            token if (n + i) % options.wrong_every else (token + 1) % options.n_vocab
            for i, token in enumerate(text[n : n + min(k, options.most)])
        ]

    def accept(self, token: int) -> None:
        self.tokens.append(token)

    def copy(self) -> Self:
        return type(self)(self.options, list(self.tokens))


def run(
    model: Sessions, requests: Sequence[Request], drafting: Drafting = NOBODY, **room: Any
) -> tuple[list[list[Any]], SessionStats, list[list[int]]]:
    """What is known of every piece, text by text; what the session did; and the whole texts' ids."""
    found: list[list[Any]] = [[] for _ in requests]
    ids = [list(request.prompt) for request in requests]
    with Scheduler(model.session(**room), reuse=False, drafting=drafting) as scheduler:
        for request in requests:
            scheduler.add(request)
        for piece in scheduler.run():
            found[piece.sequence].append(known(piece))
            if piece.token is not None:
                ids[piece.sequence].append(piece.token)
        return found, scheduler.session.stats, ids
