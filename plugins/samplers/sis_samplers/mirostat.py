"""Mirostat: truncation that steers the mean surprise of the text towards a target.

Basu et al. 2020, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity". As in llama.cpp the
observed surprise is that of the truncated distribution, from which the token was drawn.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Self

import numpy as np
from attrs import Factory, define, evolve, frozen

from sis_core.arrays import F32, Ids
from sis_core.sampler import TEMPERATURE, TRUNCATION, Sampler, SamplerContext, SamplerState, keep, number_option
from sis_samplers.candidates import allowed, at_least, chosen, descending, largest, relative_weights

M = 100  # how many of the likeliest tokens the estimate of Zipf's exponent uses


@define(eq=False)
class MirostatState(SamplerState):
    """``mu`` is the most surprise that a token may have, in bits."""

    learns = True

    tau: float
    eta: float
    n_vocab: int
    mu: float = Factory(lambda self: 2 * self.tau, takes_self=True)
    ids: Ids = Factory(lambda: np.empty(0, np.intp))  # kept by the last apply, in order
    surprise: F32 = Factory(lambda: np.empty(0, np.float32))  # theirs, in bits

    @abstractmethod
    def cut(self, values: F32, total: float) -> Ids:
        """Indices of finite logits to keep, at least one, in order; ``total`` is the sum of exp(l - max l)."""

    def apply(self, logits: F32) -> None:
        ids, values = allowed(logits)
        weights, total = relative_weights(values)
        kept = self.cut(values, total)
        self.ids = chosen(ids, kept)
        log_total = math.log(weights[kept].sum(dtype=np.float64))
        self.surprise = (values.max() - values[kept] + np.float32(log_total)) / np.float32(math.log(2))
        keep(logits, self.ids)

    def accept(self, token: int) -> None:
        """μ ← μ - η (S(token) - τ); a token that this state did not offer teaches nothing."""
        at = int(np.searchsorted(self.ids, token))
        if at < len(self.ids) and self.ids[at] == token:
            self.mu -= self.eta * (float(self.surprise[at]) - self.tau)

    def copy(self) -> Self:
        return evolve(self)


class MirostatV1State(MirostatState):
    def cut(self, values: F32, total: float) -> Ids:
        best = largest(values, M)
        best = best[descending(values[best])]
        s = zipf_exponent(values[best])
        return largest(values, n_kept(s, self.mu, self.n_vocab, len(values)))


class MirostatV2State(MirostatState):
    def cut(self, values: F32, total: float) -> Ids:
        top = float(values.max())
        # -log2 p_i = log2 total - (l_i - max l) / ln 2 ≤ μ
        least = np.float32(top + math.log(total) - self.mu * math.log(2))
        return at_least(values, min(least, values.max()))


def zipf_exponent(values: F32) -> float:
    """ŝ = Σ t_i b_i / Σ t_i², with t_i = ln((i+1)/i) and b_i = ln(p_i/p_{i+1}), over logits in descending order."""
    t = np.log1p(1 / np.arange(1, len(values)))
    b = -np.diff(values.astype(np.float64))
    return float(np.dot(t, b) / np.dot(t, t)) if len(values) > 1 else 0.0


def n_kept(s: float, mu: float, n_vocab: int, n: int) -> int:
    """k = (ε 2^μ / (1 - N^-ε))^(1/s) with ε = s - 1, within 1 … n."""
    if n == 1:
        return 1
    epsilon = s - 1
    rest = -math.expm1(-epsilon * math.log(n_vocab))
    log_power = mu * math.log(2) + math.log(epsilon / rest if rest else 1 / math.log(n_vocab))
    if log_power <= 0:
        return 1
    return n if log_power >= s * math.log(n) else int(math.exp(log_power / s))


class _Mirostat(Sampler):
    @classmethod
    def joined_by(cls, other: type[Sampler]) -> bool:
        return other.order < TRUNCATION or TEMPERATURE <= other.order < Mirostat.order


@frozen
class Mirostat(_Mirostat):
    """Steers the surprise of the text to τ bits a token, by a top-k whose k it estimates at every step."""

    name = "mirostat"
    order = 700
    tau: float = number_option(5.0, low=0, help="wanted surprise of a token, in bits")
    eta: float = number_option(0.1, low=0, high=1, help="how fast to correct")

    def start(self, context: SamplerContext) -> SamplerState:
        return MirostatV1State(self.tau, self.eta, context.n_vocab)


@frozen
class MirostatV2(_Mirostat):
    """Steers the surprise of the text to τ bits a token, by removing tokens that surprise too much."""

    name = "mirostat-v2"
    order = 710
    tau: float = number_option(5.0, low=0, help="wanted surprise of a token, in bits")
    eta: float = number_option(0.1, low=0, high=1, help="how fast to correct")

    def start(self, context: SamplerContext) -> SamplerState:
        return MirostatV2State(self.tau, self.eta, context.n_vocab)
