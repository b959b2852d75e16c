"""Top-k."""

from __future__ import annotations

from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import Truncation, integer_option
from sis_samplers.candidates import largest


@frozen
class TopK(Truncation):
    """Keeps the k likeliest tokens; 0 keeps all.

    Fan, Lewis and Dauphin 2018, "Hierarchical Neural Story Generation".
    """

    name = "top-k"
    order = 250
    default = True
    top_k: int = integer_option(40, low=0, help="how many of the likeliest tokens to keep; 0 keeps all")

    def kept(self, logits: F32) -> Ids | None:
        return largest(logits, self.top_k) if 0 < self.top_k < len(logits) else None
