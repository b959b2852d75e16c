"""XTC: exclude top choices."""

from __future__ import annotations

import numpy as np
from attrs import define, evolve, frozen

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, number_option, uniform
from sis_samplers.candidates import allowed, chosen, relative_weights


@frozen
class XTC(Sampler):
    """Sometimes removes the likeliest tokens: of those at least as likely as a threshold, all but the least likely.

    With the given probability at each step, and only where two or more tokens reach the threshold. By p-e-w, pull
    request 6335 of oobabooga/text-generation-webui (2024).
    """

    name = "xtc"
    order = 450
    xtc_probability: float = number_option(0.5, low=0, high=1, help="how often to remove the likeliest")
    xtc_threshold: float = number_option(0.1, low=0, high=0.5, help="what makes a token one of the likeliest")

    def start(self, context: SamplerContext) -> SamplerState:
        return XTCState(self, context.seed)


@define
class XTCState(SamplerState):
    """``step`` counts the tokens chosen so far: chance depends on nothing but it and the seed."""

    by_value = True

    options: XTC
    seed: int
    step: int = 0

    def apply(self, logits: F32) -> None:
        if uniform(self.seed, self.step, "xtc") >= self.options.xtc_probability:
            return
        ids, values = allowed(logits)
        weights, total = relative_weights(values)
        likely = np.flatnonzero(weights >= self.options.xtc_threshold * total)
        if len(likely) > 1:
            least = likely[values[likely].argmin()]
            logits[chosen(ids, likely[likely != least])] = -np.inf

    def accept(self, token: int) -> None:
        self.step += 1

    def copy(self) -> XTCState:
        return evolve(self)
