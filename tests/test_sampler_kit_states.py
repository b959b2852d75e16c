"""`check_sampler` finds faults of states: what they keep, copy, promise and draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pytest
from attrs import define

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, keep, uniform
from sis_core.testing import check_sampler


def starting(start: Callable[[SamplerContext], Any]) -> type[Sampler]:
    """A sampler class with this ``start``."""

    class Wrong(Sampler):
        name = "wrong"

        def start(self, context: SamplerContext) -> SamplerState:
            return start(context)  # type: ignore[no-any-return]

    return Wrong


@define
class Remembers(SamplerState):
    """Lowers tokens that were accepted."""

    seen: list[int]
    seed: int = 0

    def apply(self, logits: F32) -> None:
        logits[self.seen] -= np.float32(1)

    def accept(self, token: int) -> None:
        self.seen.append(token)

    def copy(self) -> SamplerState:  # type: ignore[override]
        return Remembers(list(self.seen))


class SharesCopies(Remembers):
    def copy(self) -> SamplerState:  # type: ignore[override]
        return type(self)(self.seen)


class HasNoCopy(SamplerState):
    """Remembers, and leaves the copy to the base class, which gives the state itself."""

    def __init__(self) -> None:
        self.n = 0

    def apply(self, logits: F32) -> None:
        logits[self.n % len(logits)] -= 1

    def accept(self, token: int) -> None:
        self.n += 1


class ForgetsInCopies(Remembers):
    def copy(self) -> SamplerState:  # type: ignore[override]
        return type(self)([])


class Counts(Remembers):
    n: int = 0

    def apply(self, logits: F32) -> None:
        self.seen.append(0)
        logits[self.seen] -= np.float32(len(self.seen))


class KeepsTheArray(Remembers):
    kept: F32 = np.zeros(1, np.float32)

    def apply(self, logits: F32) -> None:
        if not np.isnan(self.kept).any():
            logits *= np.float32(0.5)
        self.kept = logits

    def copy(self) -> SamplerState:  # type: ignore[override]
        return self


class Chance(SamplerState):
    def __init__(self, seed: int) -> None:
        self.seed, self.step = seed, 0

    def apply(self, logits: F32) -> None:
        if uniform(self.seed, self.step, "chance") < 0.5:
            logits *= np.float32(0.5)

    def accept(self, token: int) -> None:
        self.step += 1

    def copy(self) -> Self:
        other = type(self)(self.seed)
        other.step = self.step
        return other


class RestartsChance(Chance):
    def copy(self) -> Self:
        return type(self)(self.seed)


class Spells(SamplerState):
    """Forces a token that was free to come three times more."""

    def __init__(self, token: int = 0, n_left: int = 0) -> None:
        self.token, self.n_left = token, n_left

    def word(self) -> Sequence[int]:
        return [self.token] * self.n_left

    def forced(self) -> Sequence[int]:
        return self.word()

    def apply(self, logits: F32) -> None:
        if (word := self.word()) and logits[word[0]] > -np.inf:
            keep(logits, np.array(word[:1]))
        else:
            logits *= np.float32(0.5)

    def accept(self, token: int) -> None:
        self.token, self.n_left = token, self.n_left - 1 if self.n_left else 3

    def copy(self) -> Self:
        return type(self)(self.token, self.n_left)


class LeavesMore(Spells):
    def apply(self, logits: F32) -> None:
        logits *= np.float32(0.5)


class BreaksItsWord(Spells):
    def forced(self) -> Sequence[int]:
        return [*self.word(), 7] if self.n_left else ()


class ForgetsWhatItForces(Spells):
    def forced(self) -> Sequence[int]:
        found, self.n_left = self.word(), 0
        return found


class LearnsInSecret(Spells):
    """Its `accept` depends on the `apply` before it."""

    looked = True

    def apply(self, logits: F32) -> None:
        self.looked = True
        super().apply(logits)

    def accept(self, token: int) -> None:
        if self.looked:
            super().accept(token)
        self.looked = False


shared: list[int] = []


def changes_prompt(context: SamplerContext) -> SamplerState:
    context.prompt.clear()  # type: ignore[attr-defined]
    return Remembers([])


@pytest.mark.parametrize(
    ("start", "chance", "message"),
    [
        (lambda context: SharesCopies(list(context.prompt)), False, "copy must share nothing that changes"),
        (lambda context: HasNoCopy(), False, "accept changes its state, but it has no copy of its own: define copy"),
        (lambda context: ForgetsInCopies([]), False, "a copy does not go on as its original did"),
        (lambda context: RestartsChance(context.seed), True, "a copy does not go on as its original did"),
        (lambda context: Remembers(shared), False, "same seed and tokens differ|beside it"),
        (lambda context: Counts([]), False, "neither draw nor count"),
        (lambda context: KeepsTheArray([]), False, "neither draw nor count"),
        (lambda context: Chance(1234), True, "same results for every seed: chance must come from context.seed"),
        (lambda context: Chance(context.seed), False, "other results for other seeds"),
        (lambda context: None, False, "start returned NoneType, not a SamplerState"),
        (lambda context: Remembers([context.prompt[99]]), False, "start raised IndexError"),
        (changes_prompt, False, "start changed the prompt"),
        (lambda context: LeavesMore(), False, r"forces token \d+, but its apply leaves \[0, 1, 2"),
        (
            lambda context: BreaksItsWord(),
            False,
            r"promised \[\d+, \d+, 7\], and then \[\d+, \d+\]|promised \[(\d+, )*7\], and then",
        ),
        (lambda context: ForgetsWhatItForces(), False, r"forced gave \[\d+, \d+, \d+\], and then \[\]: it must change"),
        (lambda context: LearnsInSecret(), False, "without apply leave another state: say learns = True"),
    ],
    ids=[
        "shares",
        "no-copy",
        "forgets",
        "restarts",
        "one-list",
        "counts",
        "keeps",
        "own-seed",
        "chance",
        "none",
        "start",
        "prompt",
        "leaves-more",
        "breaks-its-word",
        "forced-changes",
        "learns-in-secret",
    ],
)
def test_faults_of_states(start: Callable[[SamplerContext], Any], chance: bool, message: str) -> None:
    with pytest.raises(AssertionError, match=f"sampler wrong: .*({message})"):
        check_sampler(starting(start), chance=chance)


def test_forced_tokens_that_are_right() -> None:
    check_sampler(starting(lambda context: Spells()))


def test_chance_that_is_right() -> None:
    check_sampler(starting(lambda context: Chance(context.seed)), chance=True)
