"""`check_sampler` finds faults: each sampler here is wrong in one way, and is told so in plain words."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs
import numpy as np
import pytest
from attrs import define, field, frozen

from sis_core.arrays import F32, Ids
from sis_core.registry import Registry
from sis_core.sampler import (
    Sampler,
    SamplerContext,
    SamplerState,
    Truncation,
    integer_option,
    keep,
    number_option,
    uniform,
)
from sis_core.testing import check_sampler
from sis_core.texts.chain_text import make_chain, sampler_options


class Applying(SamplerState):
    """A state that is nothing but a function of the logits."""

    def __init__(self, function: Callable[[F32], Any]) -> None:
        self.function = function

    def apply(self, logits: F32) -> None:
        return self.function(logits)  # type: ignore[no-any-return]


def applying(function: Callable[[F32], Any]) -> type[Sampler]:
    """A sampler class whose states apply ``function``."""

    class Wrong(Sampler):
        name = "wrong"

        def start(self, context: SamplerContext) -> SamplerState:
            return Applying(function)

    return Wrong


def keeping(function: Callable[[F32], Any]) -> type[Sampler]:
    """A truncation that keeps what ``function`` says."""

    @frozen
    class Wrong(Truncation):
        name = "wrong"

        def kept(self, logits: F32) -> Ids | None:
            return function(logits)  # type: ignore[no-any-return]

    return Wrong


def starting(start: Callable[[SamplerContext], Any]) -> type[Sampler]:
    """A sampler class with this ``start``."""

    class Wrong(Sampler):
        name = "wrong"

        def start(self, context: SamplerContext) -> SamplerState:
            return start(context)  # type: ignore[no-any-return]

    return Wrong


@frozen
class Good(Sampler):
    """Halves logits and forbids the token chosen last, unless it is the only one left."""

    name = "good"
    factor: float = number_option(0.5, low=0, high=2, help="multiplies logits")
    n: int = integer_option(1, low=0, help="what for")

    def start(self, context: SamplerContext) -> SamplerState:
        return GoodState(self.factor, context.prompt[-1])


@define
class GoodState(SamplerState):
    factor: float
    last: int

    def apply(self, logits: F32) -> None:
        logits[logits > -np.inf] *= np.float32(self.factor)
        saved = logits[self.last]
        logits[self.last] = -np.inf
        if logits.max() == -np.inf:
            logits[self.last] = saved

    def accept(self, token: int) -> None:
        self.last = token

    def copy(self) -> GoodState:
        return attrs.evolve(self)


def test_a_good_sampler_passes() -> None:
    check_sampler(Good)
    check_sampler(Good, factor=0.25)


# Faults of apply ------------------------------------------------------------------------------------------------------


def new_array(logits: F32) -> F32:
    return logits / np.float32(2)


def forgets(logits: F32) -> None:
    logits = logits / np.float32(2)


def revives(logits: F32) -> None:
    logits[:] = np.maximum(logits, -100)


def nan(logits: F32) -> None:
    logits[logits.argmin()] = np.nan


def inf_minus_inf(logits: F32) -> None:
    logits -= logits.min()


def plus_infinity(logits: F32) -> None:
    logits[logits.argmax()] = np.inf


def nothing_left(logits: F32) -> None:
    logits[logits <= logits.max()] = -np.inf


def nothing_left_of_one(logits: F32) -> None:
    logits[logits.argmax()] = -np.inf


def reshaped(logits: F32) -> None:
    logits.shape = (1, len(logits))


def next_row(logits: F32) -> None:
    assert logits.base is not None
    logits.base[...] *= np.float32(0.5)


def draws_numpy(logits: F32) -> None:
    logits += np.random.rand(len(logits)).astype(np.float32)


def draws_python(logits: F32) -> None:
    random.random()
    logits *= np.float32(0.5)


def raises(logits: F32) -> None:
    logits[7] = 0


own = np.random.default_rng(0)


def draws_own(logits: F32) -> None:
    logits *= np.float32(own.random())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (new_array, "apply returned an array; it must change the one it is given"),
        (forgets, "never changed a logit: it must change the array that it is given, in place"),
        (revives, "allows token .* again, which was forbidden"),
        (nan, "turned logit .* into NaN"),
        (inf_minus_inf, "arithmetic fault|into plus infinity|into NaN"),
        (plus_infinity, "turned logit .* into plus infinity"),
        (nothing_left, "forbids every token: it must keep at least one"),
        (nothing_left_of_one, r"forbids every token.*\(n_vocab 1\)"),
        (reshaped, "changed the shape from .* to"),
        (next_row, "wrote outside of its row"),
        (draws_numpy, "neither draw nor count"),
        (draws_own, "neither draw nor count"),
        (draws_python, "draws from a global generator"),
        (raises, r"apply raised IndexError: .*\(n_vocab 1\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_faults_of_apply(function: Callable[[F32], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"sampler wrong: .*({message})"):
        check_sampler(applying(function))


def writes(logits: F32) -> Ids:
    logits[logits.argmin()] -= 1
    return logits.argmax(keepdims=True)


def best_first(logits: F32) -> Ids:
    return np.argsort(-logits, kind="stable")[:3]


def by_place(logits: F32) -> Ids:
    return np.unique([logits.argmax(), len(logits) - 1])


def nobody(logits: F32) -> Ids:
    return np.empty(0, np.intp)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (writes, "kept changed the logits"),
        (best_first, "kept must give indices in ascending order, each once"),
        (by_place, "is by_value, but treats the allowed tokens otherwise when the others are not there"),
        (lambda logits: logits == logits.max(), "kept must give indices in ascending order"),
        (nobody, "forbids every token: it must keep at least one"),
    ],
)
def test_faults_of_truncations(function: Callable[[F32], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"sampler wrong: {message}"):
        check_sampler(keeping(function))


# Faults of states -----------------------------------------------------------------------------------------------------


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


# Faults of options ----------------------------------------------------------------------------------------------------


def halved(self: Sampler, context: SamplerContext) -> SamplerState:
    return GoodState(0.5, 0)


@frozen
class NoCheck(Sampler):
    name = "no-check"
    factor: float = field(default=0.5, metadata={"help": "multiplies logits"})
    start = halved


@frozen
class NoHelp(Sampler):
    name = "no-help"
    factor: float = 0.5
    start = halved


@define
class Changeable(Sampler):
    name = "changeable"
    factor: float = number_option(0.5, low=0, high=2, help="multiplies logits")
    start = halved


@frozen
class ValueErrors(Sampler):
    name = "value-errors"
    factor: float = field(default=0.5, converter=float, validator=attrs.validators.le(2), metadata={"help": "it"})
    start = halved


class NoName(Sampler):
    start = halved


class NoOrder(Sampler):
    name = "no-order"
    order: ClassVar[Any] = "last"
    start = halved


@frozen
class EmptyAtItsEnd(Sampler):
    name = "end"
    least: float = number_option(0.5, low=0, high=1, help="least probability")

    def start(self, context: SamplerContext) -> SamplerState:
        def cut(logits: F32) -> None:
            weights = np.exp(logits - logits.max())
            logits[weights / weights.sum() < self.least * 0.003] = -np.inf

        def cut_all(logits: F32) -> None:
            logits[:] = -np.inf

        return Applying(cut if self.least < 1 else cut_all)


@pytest.mark.parametrize(
    ("sampler", "fields", "message"),
    [
        (NoCheck, {}, "no-check: accepts factor=nan"),
        (NoHelp, {}, "no-help: the option factor has no help"),
        (Changeable, {}, "changeable: can be changed after it was made"),
        (
            ValueErrors,
            {},
            "value-errors: (accepts factor=nan|refuses factor=.* with ValueError, not with SamplerError)",
        ),
        (NoName, {}, "NoName: has no name"),
        (NoOrder, {}, "no-order: its order is 'last'"),
        (Good, {"factor": 3}, "good: cannot be made with .*SamplerError.*factor is 3"),
        (EmptyAtItsEnd, {}, "end: forbids every token.*least=1, random logits"),
    ],
    ids=lambda value: getattr(value, "name", None) if isinstance(value, type) else "",
)
def test_faults_of_options(sampler: type[Sampler], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler, **fields)


# The example ----------------------------------------------------------------------------------------------------------


def test_the_example_plugin() -> None:
    """From its file, as ``--plugin`` loads it: short, right, and an option of the program."""
    path = Path(__file__).parent.parent / "examples/sampler_plugin/sis_no_repeat.py"
    assert sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines()) <= 30
    registry = Registry.load(files=[path], disabled=["no-repeat"])
    check_sampler(registry.get("samplers", "no-repeat"))
    assert "--no-repeat" in {option.option for option in sampler_options(registry)}
    assert [sampler.name for sampler in make_chain(registry, "greedy", options={"no_repeat": 4})] == [
        "no-repeat",
        "greedy",
    ]
