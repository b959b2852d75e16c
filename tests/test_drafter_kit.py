"""`check_drafter` finds faults: each drafter here is wrong in one way, and is told so in plain words."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import attrs
import pytest

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.testing import check_drafter


class Echo(DraftState):
    """Guesses that the text's last token comes again."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)

    def propose(self, k: int) -> Sequence[int]:
        return self.tokens[-1:] * min(k, 3)

    def accept(self, token: int) -> None:
        self.tokens.append(token)

    def copy(self) -> Self:
        return type(self)(self.tokens)


def drafting(start: Callable[[DraftContext], Any], **names: Any) -> type[Drafter]:
    """A drafter class with this ``start``."""
    return type("Wrong", (Drafter,), {"name": "wrong", "start": lambda self, context: start(context), **names})


def test_a_good_drafter_passes() -> None:
    check_drafter(drafting(lambda context: Echo(context.tokens)))


class Silent(Echo):
    def propose(self, k: int) -> Sequence[int]:
        return []


class Greedy(Echo):
    def propose(self, k: int) -> Sequence[int]:
        return self.tokens[-1:] * (k + 1) if k else []


class Eager(Echo):
    def propose(self, k: int) -> Sequence[int]:
        return self.tokens[-1:]


class Consumes(Echo):
    def propose(self, k: int) -> Sequence[int]:
        return [self.tokens.pop()] if k and len(self.tokens) > 1 else []


class Outside(Echo):
    def propose(self, k: int) -> Sequence[int]:
        return [60] * min(k, 1)


class Draws(Echo):
    def propose(self, k: int) -> Sequence[int]:
        random.random()
        return super().propose(k)


class Shares(Echo):
    def copy(self) -> Self:
        return self


class Forgets(Echo):
    def copy(self) -> Self:
        return type(self)()


def changes(context: DraftContext) -> DraftState:
    cast(list[int], context.tokens).append(1)
    return Echo(context.tokens)


def ignores_prompts(context: DraftContext) -> DraftState:
    return Echo()


def of(state: type[Echo]) -> type[Drafter]:
    return drafting(lambda context: state(context.tokens))


@pytest.mark.parametrize(
    ("drafter", "message"),
    [
        (of(Silent), "never guessed anything"),
        (of(Greedy), "more tokens than it was asked for"),
        (of(Eager), "guessed tokens when asked for none"),
        (of(Consumes), "propose must change nothing"),
        (of(Outside), "guessed 60, which is no token"),
        (of(Draws), "draws from a global generator"),
        (of(Shares), "accept on a copy changes the original"),
        (of(Forgets), "a copy does not go on as its original did"),
        (drafting(changes), "start changed the tokens"),
        (drafting(ignores_prompts), "guesses otherwise where the same tokens were a prompt"),
        (drafting(lambda context: None), "start returned NoneType, not a DraftState"),
        (drafting(lambda context: Echo(), name=5), "has no name"),
        (attrs.frozen(type("Mute", (of(Echo),), {"__annotations__": {"n": int}, "n": 1})), "the option n has no help"),
    ],
    ids=lambda value: value.replace(" ", "-")[:30] if isinstance(value, str) else "",
)
def test_faults(drafter: type[Drafter], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_drafter(drafter)
