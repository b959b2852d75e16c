"""The likeliest token, always."""

from __future__ import annotations

from attrs import frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import TRUNCATION, Sampler, Truncation
from sis_samplers.candidates import likeliest


@frozen
class Greedy(Truncation):
    """Always the likeliest token; of equal ones, that with the lowest id."""

    name = "greedy"
    order = 700
    greedy = True

    def kept(self, logits: F32) -> Ids:
        return likeliest(logits)

    @classmethod
    def joined_by(cls, other: type[Sampler]) -> bool:
        return other.order < TRUNCATION  # a temperature or a truncation would change nothing: say so
