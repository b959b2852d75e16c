"""A sampler for sis that never says the same n tokens twice (Paulus et al. 2017)."""

import numpy as np
from attrs import define, frozen

from sis_core import hookimpl
from sis_core.arrays import F32
from sis_core.sampler import Sampler, SamplerContext, SamplerState, integer_option


@frozen
class NoRepeat(Sampler):
    """Forbids tokens that would repeat n tokens of the text."""

    name = "no-repeat"
    order = 190  # among the penalties
    no_repeat: int = integer_option(3, low=2, help="how many tokens in a row never come twice")

    def start(self, context: SamplerContext) -> SamplerState:
        return NoRepeatState(self.no_repeat, list(context.prompt))


@define
class NoRepeatState(SamplerState):
    n: int
    text: list[int]

    def apply(self, logits: F32) -> None:
        n, text = self.n, self.text
        again = [text[i + n - 1] for i in range(len(text) - n + 1) if text[i : i + n - 1] == text[1 - n :]]
        if np.delete(logits, again).max(initial=-np.inf) > -np.inf:  # something new is left to say
            logits[again] = -np.inf

    def accept(self, token: int) -> None:
        self.text.append(token)

    def copy(self) -> "NoRepeatState":
        return NoRepeatState(self.n, self.text.copy())


@hookimpl
def sis_register_samplers() -> list[type[Sampler]]:
    return [NoRepeat]
