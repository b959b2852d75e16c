"""Sampling: filters that shape the logits, and the one draw that picks a token.

A `Sampler` is an immutable record of options; `start` makes the state that follows one sequence. Filters mask with
minus infinity and never draw. The draw is a pure function of (seed, step), so neither the order of a batch nor a
rollback changes a text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, F64
from sis_core.errors import SamplerError

if TYPE_CHECKING:
    from sis_core.tokenizer import Tokenizer


@frozen(eq=False)
class SamplerContext:
    """What a sampler may know of the sequence it starts on. ``prompt`` holds the prompt's token ids."""

    n_vocab: int
    prompt: Sequence[int] = ()
    tokenizer: Tokenizer | None = None
    seed: int = 0


class SamplerState(ABC):
    """One sampler following one sequence."""

    @abstractmethod
    def apply(self, logits: F32) -> None:
        """Change ``logits`` float32 ``(n_vocab,)`` in place; minus infinity forbids a token."""

    def accept(self, token: int) -> None:
        """Called once for every token that joins the sequence after the prompt."""

    def copy(self) -> Self:
        """An independent state; a state that `accept` never changes may return itself."""
        return self


class Sampler(ABC):
    """Options of a sampler: an attrs class whose fields, with their validators, become command line options.

    Attributes:
        name: unique among samplers, such as ``top-p``.
        order: place in a chain that the user did not order: penalties 0–199, truncation 200–499, temperature 500–699,
            choosers such as greedy or mirostat 700 and up.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 300

    @abstractmethod
    def start(self, context: SamplerContext) -> SamplerState:
        """A state for one sequence."""


class Chain(SamplerState):
    """Samplers in order, as one state, with the final draw."""

    def __init__(self, states: Sequence[tuple[str, SamplerState]], seed: int) -> None:
        self._states, self.seed = list(states), seed

    @classmethod
    def start(cls, samplers: Sequence[Sampler], context: SamplerContext) -> Chain:
        return cls([(sampler.name, sampler.start(context)) for sampler in samplers], context.seed)

    def apply(self, logits: F32) -> None:
        for name, state in self._states:
            state.apply(logits)
            if np.isnan(logits).any():
                raise SamplerError("turned a logit into NaN", where=f"sampler {name}")

    def accept(self, token: int) -> None:
        for _, state in self._states:
            state.accept(token)

    def copy(self) -> Chain:
        return Chain([(name, state.copy()) for name, state in self._states], self.seed)

    def choose(self, logits: F32, step: int) -> int:
        """Filter a copy of ``logits`` and draw; ``step`` counts the tokens chosen before in this sequence.

        Raises:
            SamplerError: NaN in the logits, or every token forbidden.
        """
        if np.isnan(logits).any():
            raise SamplerError(
                "the model gave a logit that is NaN", where="sampling", fix="check the file with `sis doctor -m`"
            )
        filtered = logits.copy()
        self.apply(filtered)
        top = filtered.max()
        if top == -np.inf:
            raise SamplerError("every token is forbidden", where="sampling", fix="loosen the samplers or the bias")
        return draw(filtered, self.seed, step)


def draw(logits: F32, seed: int, step: int) -> int:
    """One token id from softmax(logits), a pure function of its arguments.

    The uniform number is Philox 4x64 (Salmon et al. 2011) with ``seed`` as key and ``step`` as counter. Infinite
    logits share the whole probability among themselves.
    """
    top = logits.max()
    weights: F64 = (logits == top).astype(np.float64) if np.isinf(top) else np.exp((logits - top).astype(np.float64))
    kept = np.flatnonzero(weights)
    if len(kept) == 1:
        return int(kept[0])
    ends = np.cumsum(weights[kept])
    bits = np.random.Philox(key=seed % 2**64, counter=step).random_raw()
    uniform = (int(bits) >> 11) * 2.0**-53
    return int(kept[min(int(np.searchsorted(ends, uniform * ends[-1], side="right")), len(kept) - 1)])


def log_softmax(logits: F32) -> F64:
    """Natural logarithms of the probabilities, float64, along the last axis."""
    shifted: F64 = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
