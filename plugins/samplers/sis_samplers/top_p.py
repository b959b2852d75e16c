"""Top-p, also called nucleus sampling."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, F64
from sis_core.sampler import Sampler, SamplerContext, SamplerState, number_option
from sis_samplers.candidates import Ids, allowed, descending, keep, largest

FIRST = 128  # how many of the likeliest to look at first


@frozen
class TopP(Sampler):
    """Keeps the fewest likeliest tokens that together have the probability p; 1 keeps all.

    V = the smallest set with Σ_{i in V} p_i ≥ p (Holtzman et al. 2019, "The Curious Case of Neural Text
    Degeneration").
    """

    name = "top-p"
    order = 350
    default = True
    top_p: float = number_option(0.95, low=0, high=1, help="how much probability the kept tokens have together")

    def start(self, context: SamplerContext) -> SamplerState:
        return TopPState(self.top_p)


@frozen
class TopPState(SamplerState):
    p: float

    def apply(self, logits: F32) -> None:
        if self.p >= 1:
            return
        ids = allowed(logits)
        values = logits[ids]
        weights = np.exp(
            values - values.max()
        )  # float32: a full float64 pass over the vocabulary costs five times more
        wanted = self.p * float(weights.sum(dtype=np.float64))
        keep(logits, ids[nucleus(values, weights, wanted)])


def nucleus(values: F32, weights: F32, wanted: float) -> Ids:
    """Indices of the fewest largest values whose weights sum to ``wanted``; at least one."""
    k = FIRST
    while True:
        best = np.sort(largest(values, k))  # in order of ids, so that a stable sort breaks ties by id
        best = best[descending(values[best])]
        ends: F64 = np.cumsum(weights[best], dtype=np.float64)
        if ends[-1] >= wanted or len(best) == len(values):
            return best[: int(np.searchsorted(ends, wanted)) + 1]
        k *= 8
