"""Samplers that are timed, and the draw behind them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, frozen

from sis_core.arrays import F32
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerContext, SamplerState
from sis_core.workbench.profiling.recorder import Recorder, Span


@define(eq=False)
class Draw:
    """The stretch from the last filter to the first `accept`."""

    span: Span | None = None


@define(eq=False)
class TimedState(SamplerState):
    """A sampler's state that records how long each of its calls takes."""

    state: SamplerState
    name: str
    owner: str
    last: bool
    draw: Draw
    recorder: Recorder

    @property
    def learns(self) -> bool:  # type: ignore[override]
        return self.state.learns

    def forced(self) -> Sequence[int]:
        return self.state.forced()

    def apply(self, logits: F32) -> None:
        with self.recorder.span("sampler", self.owner, self.name):
            self.state.apply(logits)
        if self.last:
            self.draw.span = self.recorder.begin("draw")

    def accept(self, token: int) -> None:
        if self.draw.span is not None:
            self.recorder.end(self.draw.span)
            self.draw.span = None
        with self.recorder.span("sampler", self.owner, self.name):
            self.state.accept(token)


@frozen(eq=False)
class TimedSampler(Sampler):
    """A sampler that is timed."""

    sampler: Sampler
    owner: str
    last: bool
    draw: Draw
    recorder: Recorder

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.sampler.name

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.sampler.order

    def start(self, context: SamplerContext) -> SamplerState:
        state = self.sampler.start(context)
        return TimedState(state, self.name, self.owner, self.last, self.draw, self.recorder)


def timed_samplers(samplers: Sequence[Sampler], registry: Registry, recorder: Recorder) -> list[Sampler]:
    """The same chain, timed sampler by sampler."""
    draw = Draw()
    last = len(samplers) - 1
    return [
        TimedSampler(sampler, registry.owner("samplers", type(sampler)) or "core", i == last, draw, recorder)
        for i, sampler in enumerate(samplers)
    ]
