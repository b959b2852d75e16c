"""Top-n-sigma."""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import Truncation, number_option
from sis_samplers.candidates import allowed, at_least


@frozen
class TopNSigma(Truncation):
    """Keeps logits at most n standard deviations below the highest.

    l_i ≥ max l - n·σ, with σ over the tokens still allowed (Tang et al. 2024, "Top-nσ: Not All Logits Are You Need").
    What it keeps does not depend on a temperature before it.
    """

    name = "top-n-sigma"
    order = 200
    top_n_sigma: float = number_option(1.0, low=0, above_low=True, help="standard deviations below the highest logit")

    def kept(self, logits: F32) -> Ids:
        _, values = allowed(logits)
        deviation = values.astype(np.float64)
        deviation -= deviation.mean()
        np.square(deviation, out=deviation)
        sigma = math.sqrt(deviation.mean())
        return at_least(logits, float(logits.max()) - self.top_n_sigma * sigma)
