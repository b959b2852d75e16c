"""The likeliest token, always."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import TRUNCATION, Sampler, SamplerContext, SamplerState
from sis_samplers.candidates import keep


@frozen
class Greedy(Sampler):
    """Always the likeliest token; of equal ones, that with the lowest id."""

    name = "greedy"
    order = 700

    def start(self, context: SamplerContext) -> SamplerState:
        return GreedyState()

    @classmethod
    def joined_by(cls, other: type[Sampler]) -> bool:
        return other.order < TRUNCATION  # a temperature or a truncation would change nothing: say so


class GreedyState(SamplerState):
    def apply(self, logits: F32) -> None:
        keep(logits, np.array([logits.argmax()]))
