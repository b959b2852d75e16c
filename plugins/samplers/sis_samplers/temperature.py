"""Temperature."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import Filter, highest, keep, number_option
from sis_samplers.candidates import likeliest

TINY = float(np.finfo(np.float32).tiny)


@frozen
class Temperature(Filter):
    """Divides logits by T: below 1 the likely become likelier, above 1 all become alike; 0 is greedy.

    p_i ∝ exp(l_i / T), with l the logits (Ackley, Hinton and Sejnowski 1985).
    """

    name = "temperature"
    order = 500
    default = True
    by_value = True
    temperature: float = number_option(
        0.8, low=0, high=1000, help="below 1 safer, above 1 wilder, 0 always the likeliest"
    )

    def apply(self, logits: F32) -> None:
        if self.temperature < TINY:
            keep(logits, likeliest(logits))
            return
        top = highest(logits)
        if abs(top) / self.temperature > 1e30:  # a quotient could be infinite: count from the top instead
            logits -= np.float32(top)
        with np.errstate(over="ignore"):
            logits /= np.float32(self.temperature)
