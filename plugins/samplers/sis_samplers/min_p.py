"""Min-p."""

from __future__ import annotations

import math

from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import Filter, number_option
from sis_samplers.candidates import keep_at_least


@frozen
class MinP(Filter):
    """Keeps tokens at least p times as likely as the likeliest; 0 keeps all.

    p_i ≥ p · max p, which is l_i ≥ max l + ln p for logits l (Nguyen et al. 2024, "Turning Up the Heat: Min-p
    Sampling").
    """

    name = "min-p"
    order = 400
    default = True
    min_p: float = number_option(0.05, low=0, high=1, help="least probability, as a part of the likeliest token's")

    def apply(self, logits: F32) -> None:
        if self.min_p > 0:
            keep_at_least(logits, float(logits.max()) + math.log(self.min_p))
