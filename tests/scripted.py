"""A sampler that says what a test tells it to."""

from __future__ import annotations

import attrs
import numpy as np
from tiny_models import EOS

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState


@attrs.frozen
class Says(Sampler):
    """Chooses the tokens that it was told, then the end."""

    name = "says"
    order = 900
    tokens: tuple[int, ...] = ()

    def start(self, context: SamplerContext) -> SamplerState:
        return _Saying([*self.tokens, EOS])


class _Saying(SamplerState):
    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.at = tokens, 0

    def apply(self, logits: F32) -> None:
        logits[np.arange(len(logits)) != self.tokens[self.at]] = -np.inf

    def accept(self, token: int) -> None:
        self.at += 1
