"""Min-p."""

from __future__ import annotations

import math

from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import Truncation, highest, number_option
from sis_samplers.candidates import at_least


@frozen
class MinP(Truncation):
    """Keeps tokens at least p times as likely as the likeliest; 0 keeps all.

    p_i ≥ p · max p, which is l_i ≥ max l + ln p for logits l (Nguyen et al. 2024, "Turning Up the Heat: Min-p
    Sampling").
    """

    name = "min-p"
    order = 400
    default = True
    min_p: float = number_option(0.05, low=0, high=1, help="least probability, as a part of the likeliest token's")

    def kept(self, logits: F32) -> Ids | None:
        return at_least(logits, highest(logits) + math.log(self.min_p)) if self.min_p > 0 else None
