"""`check_sampler` finds faults of logits, truncations and options: each sampler is wrong in one way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

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
    number_option,
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
