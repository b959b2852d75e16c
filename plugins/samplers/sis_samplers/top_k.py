"""Top-k."""

from __future__ import annotations

from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import Filter, integer_option
from sis_samplers.candidates import keep, largest


@frozen
class TopK(Filter):
    """Keeps the k likeliest tokens; 0 keeps all.

    Fan, Lewis and Dauphin 2018, "Hierarchical Neural Story Generation".
    """

    name = "top-k"
    order = 250
    default = True
    top_k: int = integer_option(40, low=0, help="how many of the likeliest tokens to keep; 0 keeps all")

    def apply(self, logits: F32) -> None:
        if 0 < self.top_k < len(logits):
            keep(logits, largest(logits, self.top_k))
