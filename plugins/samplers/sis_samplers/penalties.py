"""Penalties for tokens that the text already has."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, integer_option, number_option


@frozen
class Penalties(Sampler):
    """Makes tokens of the last n (prompt and text) less likely; its defaults change nothing.

    For a token that occurs c > 0 times: l ← l / r for l > 0, else l · r (repeat penalty r, Keskar et al. 2019,
    "CTRL"); then l ← l - c · frequency penalty - presence penalty (OpenAI API reference).
    """

    name = "penalties"
    order = 100
    repeat_penalty: float = number_option(
        1.0, low=0.01, high=100, help="divides the logits of tokens that occurred; 1 changes nothing"
    )
    frequency_penalty: float = number_option(
        0.0, low=-100, high=100, help="subtracted from a logit for each time that its token occurred"
    )
    presence_penalty: float = number_option(
        0.0, low=-100, high=100, help="subtracted once from the logits of tokens that occurred"
    )
    repeat_last_n: int = integer_option(
        64, low=-1, high=2**31 - 1, help="how many tokens to look back; -1 for all, 0 for none"
    )

    def start(self, context: SamplerContext) -> SamplerState:
        recent: deque[int] = deque(maxlen=None if self.repeat_last_n < 0 else self.repeat_last_n)
        recent.extend(token for token in context.prompt if 0 <= token < context.n_vocab)
        return PenaltiesState(self, recent, Counter(recent))


class PenaltiesState(SamplerState):
    def __init__(self, options: Penalties, recent: deque[int], counts: Counter[int]) -> None:
        self.options, self.recent, self.counts = options, recent, counts

    def apply(self, logits: F32) -> None:
        if not self.counts:
            return
        options = self.options
        ids = np.fromiter(self.counts.keys(), np.intp, len(self.counts))
        counts = np.fromiter(self.counts.values(), np.float32, len(self.counts))
        values = logits[ids]
        values = np.where(
            values > 0, values / np.float32(options.repeat_penalty), values * np.float32(options.repeat_penalty)
        )
        logits[ids] = values - counts * np.float32(options.frequency_penalty) - np.float32(options.presence_penalty)

    def accept(self, token: int) -> None:
        if self.recent.maxlen == 0:
            return
        if len(self.recent) == self.recent.maxlen:
            oldest = self.recent[0]
            self.counts[oldest] -= 1
            if not self.counts[oldest]:
                del self.counts[oldest]
        self.recent.append(token)
        self.counts[token] += 1

    def copy(self) -> PenaltiesState:
        return PenaltiesState(self.options, self.recent.copy(), self.counts.copy())
