"""Temperature."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, number_option
from sis_samplers.greedy import GreedyState

TINY = float(np.finfo(np.float32).tiny)


@frozen
class Temperature(Sampler):
    """Divides logits by T: below 1 the likely become likelier, above 1 all become alike; 0 is greedy.

    p_i ∝ exp(l_i / T), with l the logits (Ackley, Hinton and Sejnowski 1985).
    """

    name = "temperature"
    order = 500
    default = True
    temperature: float = number_option(0.8, low=0, help="below 1 safer, above 1 wilder, 0 always the likeliest")

    def start(self, context: SamplerContext) -> SamplerState:
        return GreedyState() if self.temperature < TINY else TemperatureState(self.temperature)


@frozen
class TemperatureState(SamplerState):
    temperature: float

    def apply(self, logits: F32) -> None:
        top = float(logits.max())
        if abs(top) / self.temperature > 1e30:  # a quotient could be infinite: count from the top instead
            logits -= np.float32(top)
        with np.errstate(over="ignore"):
            logits /= np.float32(self.temperature)
