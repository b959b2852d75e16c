"""The likeliest token, always."""

from __future__ import annotations

from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import TRUNCATION, Filter, Sampler
from sis_samplers.candidates import keep_likeliest


@frozen
class Greedy(Filter):
    """Always the likeliest token; of equal ones, that with the lowest id."""

    name = "greedy"
    order = 700

    def apply(self, logits: F32) -> None:
        keep_likeliest(logits)

    @classmethod
    def joined_by(cls, other: type[Sampler]) -> bool:
        return other.order < TRUNCATION  # a temperature or a truncation would change nothing: say so
