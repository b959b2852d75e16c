"""Sampling: filters that shape the logits, and the one draw that picks a token.

A `Sampler` is an immutable record of options; `start` makes the state that follows one sequence. Filters mask with
minus infinity and never draw. The draw is a pure function of (seed, step), so neither the order of a batch nor a
rollback changes a text.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs
import numpy as np

from sis_core.arrays import F32, F64, Ids
from sis_core.errors import SamplerError

if TYPE_CHECKING:
    from sis_core.tokenizer import Tokenizer

TRUNCATION, TEMPERATURE, CHOOSER = 200, 500, 700
"""Where the ranges of `Sampler.order` begin; penalties and biases come before `TRUNCATION`."""
_STRIDE = 256


@attrs.frozen(eq=False)
class SamplerContext:
    """What a sampler may know of the sequence it starts on. ``prompt`` holds the prompt's token ids."""

    n_vocab: int
    prompt: Sequence[int] = ()
    tokenizer: Tokenizer | None = None
    seed: int = 0


class SamplerState(ABC):
    """One sampler following one sequence.

    Attributes:
        by_value: whether `apply` looks at the values alone, neither at whose they are nor at how many are forbidden.
            It may then be given those of the tokens still allowed and no others, in the order of ids.
        learns: whether `accept` depends on the `apply` before it, as mirostat's does. Such a state must see every row.
        greedy: whether all that the state does is to leave the likeliest token, of equal ones the first.
    """

    by_value: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    greedy: ClassVar[bool] = False

    @abstractmethod
    def apply(self, logits: F32) -> None:
        """Change ``logits`` float32 ``(n_vocab,)`` in place; minus infinity forbids a token. Nothing else changes."""

    def accept(self, token: int) -> None:  # noqa: B027 - most filters have nothing to remember
        """Called once for every token that joins the sequence after the prompt."""

    def forced(self) -> Sequence[int]:
        """Tokens that must come next: of which `apply`, called for each in turn, would leave only that one.

        None by default. A grammar that knows what follows names it, so that it can be fed without a step for each.
        """
        return ()

    def copy(self) -> Self:
        """An independent state; a state that `accept` never changes may return itself."""
        return self


class Sampler(ABC):
    """Options of a sampler: an attrs class whose fields, with their validators, become command line options.

    The first field is the main one: ``--samplers "top-p=0.9"`` sets it. See `number_option` and `integer_option`.

    Attributes:
        name: unique among samplers, such as ``top-p``.
        order: place in a chain that the user did not order: penalties 0–199, truncation 200–499, temperature 500–699,
            choosers such as greedy or mirostat 700 and up.
        default: whether it is part of the chain when the user names no sampler.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 300
    default: ClassVar[bool] = False

    @abstractmethod
    def start(self, context: SamplerContext) -> SamplerState:
        """A state for one sequence."""

    @classmethod
    def joined_by(cls, other: type[Sampler]) -> bool:
        """Whether ``other`` may join a chain made for this sampler, because one of its options was given."""
        return other.order < CHOOSER


@attrs.frozen
class Filter(Sampler, SamplerState):
    """A sampler without memory: its options are its state. A subclass needs a ``name`` and `SamplerState.apply`."""

    def start(self, context: SamplerContext) -> SamplerState:
        """The filter itself: it follows any number of sequences."""
        return self


@attrs.frozen
class Truncation(Filter):
    """A filter that only says which tokens stay. A chain goes on with those alone, so that the rest costs nothing."""

    by_value = True

    @abstractmethod
    def kept(self, logits: F32) -> Ids | None:
        """Indices of the values that stay, in ascending order, or None for all; ``logits`` are left as they are."""

    def apply(self, logits: F32) -> None:
        if (ids := self.kept(logits)) is not None:
            keep(logits, ids)


def highest(values: F32) -> float:
    """The largest value, or NaN where there is one. For a few values argmax takes a third of the time of max."""
    return float(values[values.argmax()])


def keep(logits: F32, ids: Ids) -> None:
    """Forbid everything but ``ids``, in place."""
    values = logits[ids]
    logits.fill(-np.inf)
    logits[ids] = values


def number_option(
    default: float, *, low: float = -np.inf, high: float = np.inf, above_low: bool = False, help: str
) -> Any:
    """An attrs field for a finite number from ``low`` to ``high``; ``above_low`` leaves ``low`` itself out."""

    def fits(value: Any) -> bool:
        number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(float(value))
        return number and low <= float(value) <= high and not (above_low and float(value) == low)

    rule = f"a{' finite' * (high == np.inf)} number{_range(low, high, above_low)}"
    ends = {"low": None if above_low else low, "high": high}
    return _option(default, fits, rule, help, lambda v: float(v) if isinstance(v, Real) else v, ends)


def integer_option(default: int, *, low: int | None = None, high: int | None = None, help: str) -> Any:
    """An attrs field for a whole number from ``low`` to ``high``."""
    least, most = -np.inf if low is None else low, np.inf if high is None else high

    def fits(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most

    rule = f"a whole number{_range(least, most, False)}"
    ends = {"low": low, "high": high}
    return _option(default, fits, rule, help, lambda v: int(v) if isinstance(v, Integral) else v, ends)


def _option(
    default: Any,
    fits: Callable[[Any], bool],
    rule: str,
    help: str,
    convert: Callable[[Any], Any],
    ends: Mapping[str, float | None],
) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not fits(value):
            raise SamplerError(
                f"{attribute.name} is {value!r}, but must be {rule}", where=f"sampler {getattr(instance, 'name', '?')}"
            )

    def keep_bool(value: Any) -> Any:
        return value if isinstance(value, bool) else convert(value)

    return attrs.field(
        default=default,
        converter=keep_bool,
        validator=check,
        metadata={"help": f"{help} ({rule})", "rule": rule, **ends},
    )


def _range(low: float, high: float, above_low: bool) -> str:
    if high == np.inf:
        return "" if low == -np.inf else f" above {low:g}" if above_low else f", {low:g} or more"
    return f" above {low:g}, up to {high:g}" if above_low else f" from {low:g} to {high:g}"


def draw(logits: F32, seed: int, step: int) -> int:
    """One token id from softmax(logits), a pure function of its arguments; at least one must be above minus infinity.

    The inverse of the cumulated probabilities in the order of ids, at the place given by `uniform`. Infinite logits
    share the whole probability among themselves.
    """
    if len(logits) == 1:  # greedy: chance decides nothing
        return 0
    top = highest(logits)
    mask = logits == top if top == np.inf else logits > -np.inf
    kept = None if np.count_nonzero(mask) == len(mask) else mask.nonzero()[0]
    if kept is not None and len(kept) == 1:
        return int(kept[0])
    weights = (logits if kept is None else logits[kept]).astype(np.float64)
    if top == np.inf:
        weights.fill(1)
    else:
        weights -= top
        np.exp(weights, out=weights)
    index = _cumulated(weights, uniform(seed, step))
    return index if kept is None else int(kept[index])


def _cumulated(weights: F64, share: float) -> int:
    """The index at which the sum of the weights reaches that share of the whole."""
    if len(weights) <= _STRIDE:
        ends = weights.cumsum()
        return _place(ends, share * float(ends[-1]))
    # In two strides: first the block, then the token in it.
    starts = np.arange(0, len(weights), _STRIDE)
    ends = np.cumsum(np.add.reduceat(weights, starts))
    target = share * float(ends[-1])
    block = _place(ends, target)
    before = float(ends[block - 1]) if block else 0.0
    start = int(starts[block])
    return start + _place(weights[start : start + _STRIDE].cumsum(), target - before)


def _place(ends: F64, target: float) -> int:
    """The first place whose end lies above ``target``; where rounding leaves none, the first that reaches the last end.

    Either way something of positive weight, for a token of weight zero ends where its neighbour ends.
    """
    place = int(ends.searchsorted(target, "right"))
    return place if place < len(ends) else int(ends.searchsorted(ends[-1]))


def uniform(seed: int, step: int, purpose: str = "") -> float:
    """A number in [0, 1) that depends on nothing but its arguments: Philox 4x64 (Salmon et al. 2011).

    The key is the seed (modulo 2**64) and a checksum of ``purpose``, the counter is ``step``. The draw has the empty
    purpose; a sampler that needs chance uses its own name, so that their numbers are independent.
    """
    return (_philox(step + 1, seed & _WORD, zlib.crc32(purpose.encode())) >> 11) * 2.0**-53


_WORD = 2**64 - 1


def _philox(counter: int, key0: int, key1: int) -> int:
    """The first of four random words; in Python ints, for making a generator of numpy takes three times as long."""
    c0, c1, c2, c3 = counter & _WORD, 0, 0, 0
    for _ in range(10):
        product0, product2 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = product2 >> 64 ^ c1 ^ key0, product2 & _WORD, product0 >> 64 ^ c3 ^ key1, product0 & _WORD
        key0, key1 = key0 + 0x9E3779B97F4A7C15 & _WORD, key1 + 0xBB67AE8584CAA73B & _WORD
    return c0


def log_softmax(logits: F32) -> F64:
    """Natural logarithms of the probabilities, float64, along the last axis."""
    shifted: F64 = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted
