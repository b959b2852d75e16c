"""A sampler that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

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
        return Saying([*self.tokens, EOS])


class Saying(SamplerState):
    """Leaves one token, the next of ``tokens``."""

    def __init__(self, tokens: Sequence[int], at: int = 0) -> None:
        self.tokens, self.at = tokens, at

    def apply(self, logits: F32) -> None:
        logits[np.arange(len(logits)) != self.tokens[self.at]] = -np.inf

    def accept(self, token: int) -> None:
        self.at += 1

    def copy(self) -> Self:
        return type(self)(self.tokens, self.at)
