"""Locally typical sampling."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import Truncation, number_option
from sis_samplers.candidates import allowed, chosen, nucleus, relative_weights


@frozen
class Typical(Truncation):
    """Keeps the tokens whose surprise is nearest to the expected one, until they have the probability p; 1 keeps all.

    Order by |H + ln p_i| with H = -Σ p ln p, then the fewest with Σ p_i ≥ p (Meister et al. 2022, "Locally Typical
    Sampling").
    """

    name = "typical"
    order = 300
    typical_p: float = number_option(0.95, low=0, high=1, help="how much probability the kept tokens have together")

    def kept(self, logits: F32) -> Ids | None:
        if self.typical_p >= 1:
            return None
        ids, values = allowed(logits)
        values = values - values.max()
        weights, total = relative_weights(values)
        # -ln p_i = ln total - value_i, so the mean of value_i stands for the entropy.
        usual = float((weights * values).sum(dtype=np.float64)) / total
        nearness = values - np.float32(usual)
        np.abs(nearness, out=nearness)
        np.negative(nearness, out=nearness)
        return chosen(ids, nucleus(nearness, weights, self.typical_p * total))
