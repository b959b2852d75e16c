"""Top-p, also called nucleus sampling."""

from __future__ import annotations

from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import Truncation, number_option
from sis_samplers.candidates import allowed, chosen, nucleus, relative_weights


@frozen
class TopP(Truncation):
    """Keeps the fewest likeliest tokens that together have the probability p; 1 keeps all.

    V = the smallest set with Σ_{i in V} p_i ≥ p (Holtzman et al. 2019, "The Curious Case of Neural Text
    Degeneration").
    """

    name = "top-p"
    order = 350
    default = True
    top_p: float = number_option(0.95, low=0, high=1, help="how much probability the kept tokens have together")

    def kept(self, logits: F32) -> Ids | None:
        if self.top_p >= 1:
            return None
        ids, values = allowed(logits)
        weights, total = relative_weights(values)
        return chosen(ids, nucleus(values, weights, self.top_p * total))
