"""Samplers in order, as one state, with the final draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sis_core.arrays import F32, Ids
from sis_core.errors import FOREIGN, SamplerError, SisError
from sis_core.sampler import TRUNCATION, Sampler, SamplerContext, SamplerState, Truncation, draw, highest


class Chain(SamplerState):
    """Samplers in order, as one state, with the final draw.

    Args:
        n_early: how many of the first go by ids, as penalties and biases do, and forbid nothing for its value.

    Attributes:
        forces: whether any of them may know what must come next.
        takes_best: whether the likeliest token is chosen, and that is all.
    """

    def __init__(self, states: Sequence[tuple[str, SamplerState]], seed: int, n_early: int = 0) -> None:
        self._states, self.seed, self._n_early = list(states), seed, n_early
        # Asked once: whether something is an instance of an abstract class takes long to tell.
        self._kept = [state.kept if isinstance(state, Truncation) else None for _, state in states]
        self._forcing = [i for i, (_, state) in enumerate(states) if not _is_inherited(state.forced)]
        self._accepting = [(name, state) for name, state in states if not _is_inherited(state.accept)]
        self.forces, self.takes_best = bool(self._forcing), len(states) == 1 and states[0][1].greedy

    @classmethod
    def start(cls, samplers: Sequence[Sampler], context: SamplerContext) -> Chain:
        """The states of ``samplers`` for one sequence; SamplerError names the one that cannot start."""
        states = []
        for sampler in samplers:
            try:
                state = sampler.start(context)
            except (SisError, MemoryError):
                raise
            except FOREIGN as error:
                raise _blamed(sampler.name, error) from error
            if not isinstance(state, SamplerState):
                raise SamplerError(
                    f"start returned {type(state).__name__}, not a SamplerState", where=f"sampler {sampler.name}"
                )
            states.append((sampler.name, state))
        n_early = next((i for i, s in enumerate(samplers) if s.order >= TRUNCATION), len(samplers))
        return cls(states, context.seed, n_early)

    def apply(self, logits: F32) -> None:
        """Run every sampler; SamplerError names the one that fails, makes a NaN, or forbids the last token."""
        ids, values = self._filter(logits)
        logits[:] = values if ids is None else _spread(values, ids, len(logits))

    def _filter(self, logits: F32) -> tuple[Ids | None, F32]:
        """The ids that may still be chosen, or None for all, and their values; ``logits`` are left as they are."""
        ids: Ids | None = None
        values = logits
        for (name, state), choose in zip(self._states, self._kept, strict=True):
            try:
                if choose is not None:
                    if (kept := choose(values)) is None:
                        continue
                    if kept.dtype.kind != "i":
                        raise TypeError(f"kept gave {kept.dtype}, not indices")
                    ids, values = kept if ids is None else ids[kept], values[kept]
                else:
                    if ids is not None and not state.by_value:
                        values, ids = _spread(values, ids, len(logits)), None
                    elif values is logits:
                        values = logits.copy()
                    if state.apply(values) is not None:
                        raise SamplerError(
                            "apply returned a value: it changes the logits in place, and returns nothing",
                            where=f"sampler {name}",
                        )
            except (SisError, MemoryError):
                raise
            except FOREIGN as error:
                raise _blamed(name, error) from error
            top = highest(values) if len(values) else -np.inf
            if top != top:
                raise SamplerError("turned a logit into NaN", where=f"sampler {name}")
            if top == -np.inf:
                raise SamplerError(
                    "every token is forbidden", where=f"sampler {name}", fix="loosen it or the samplers before it"
                )
        return ids, values

    def accept(self, token: int) -> None:
        for name, state in self._accepting:
            try:
                state.accept(token)
            except (SisError, MemoryError):
                raise
            except FOREIGN as error:
                raise _blamed(name, error) from error

    def copy(self) -> Chain:
        return Chain([(name, state.copy()) for name, state in self._states], self.seed, self._n_early)

    def forced(self) -> Sequence[int]:
        """What the sampler that looks furthest says must come next."""
        found: list[Sequence[int]] = []
        for i in self._forcing:
            name, state = self._states[i]
            try:
                found.append(state.forced())
            except (SisError, MemoryError):
                raise
            except FOREIGN as error:
                raise _blamed(name, error) from error
        return max(found, key=len, default=())

    @property
    def blind(self) -> bool:
        """Whether forced tokens are chosen whatever the logits are.

        Not where a state learns from logits, nor where a sampler before one that forces may forbid a token for its
        value: there the chain fails if that is the token that is forced.
        """
        return all(i <= self._n_early for i in self._forcing) and not any(s.learns for _, s in self._states)

    def choose(self, logits: F32, step: int) -> int:
        """Filter ``logits``, which stay as they are, and draw.

        ``step`` counts the tokens chosen before in this sequence. The answer is an index of ``logits``, whatever the
        samplers do. Infinite logits share the whole probability among themselves.

        Raises:
            SamplerError: NaN in the logits, or every token forbidden.
        """
        check_top(top := highest(logits))
        if top == np.inf:  # so that no sampler meets inf - inf
            logits = np.where(logits == top, np.float32(0), np.float32(-np.inf))
        ids, values = self._filter(logits)
        index = draw(values, self.seed, step)
        return index if ids is None else int(ids[index]) % len(logits)  # a sampler may have counted from the end


def _is_inherited(method: Callable[..., Any]) -> bool:
    """Whether a state's method is the one of `SamplerState`, which does nothing."""
    return getattr(method, "__func__", None) in (SamplerState.accept, SamplerState.forced)


def check_top(top: float) -> None:
    """SamplerError for the highest of logits from which nothing can be chosen."""
    if top != top:
        raise SamplerError(
            "the model gave a logit that is NaN", where="sampling", fix="check the file with `sis doctor -m`"
        )
    if top == -np.inf:
        raise SamplerError(
            "the model gave no token a chance: every logit is minus infinity",
            where="sampling",
            fix="check the file with `sis doctor -m`",
        )


def _spread(values: F32, ids: Ids, n: int) -> F32:
    """Logits ``(n,)`` of which only ``ids`` are allowed."""
    logits = np.full(n, -np.inf, np.float32)
    logits[ids] = values
    return logits


def _blamed(name: str, error: BaseException) -> SamplerError:
    """Names the sampler whose code raised what is not our own error."""
    return SamplerError(f"failed: {type(error).__name__}: {error}", where=f"sampler {name}")
