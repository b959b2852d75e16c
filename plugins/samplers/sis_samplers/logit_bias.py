"""Logit bias."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, Ids
from sis_core.errors import SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState

WHERE = "sampler logit-bias"
EXAMPLE = "write 15043=+1.5,29=-inf"
Bias = tuple[tuple[int, float], ...]


def read_bias(given: Any) -> Bias:
    """Pairs of token id and bias, in order of ids, from a map, from text, or from a sequence of pairs or texts."""
    pairs: dict[int, float] = {}
    for token, bias in _pairs(given):
        try:
            key, value = int(token), float(bias)
        except (TypeError, ValueError):
            raise SamplerError(f"{token}={bias} is not token id and number", where=WHERE, fix=EXAMPLE) from None
        if key < 0 or math.isnan(value) or value == math.inf:
            raise SamplerError(
                f"logit_bias is {key}={value:g}, but must be a token id, 0 or more, and a finite number or -inf",
                where=WHERE,
            )
        if key in pairs:
            raise SamplerError(f"token {key} is given twice", where=WHERE)
        pairs[key] = value
    return tuple(sorted(pairs.items()))


def _pairs(given: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(given, str):
        for part in filter(None, (part.strip() for part in given.split(","))):
            yield part.partition("=")[::2]
    elif isinstance(given, Iterable):
        for part in given:
            if isinstance(part, str):
                yield from _pairs(part)
            elif isinstance(part, tuple | list) and len(part) == 2:
                yield part[0], part[1]
            else:
                raise SamplerError(f"{part!r} is not a pair of token id and number", where=WHERE, fix=EXAMPLE)
    else:
        raise SamplerError(f"{given!r} is not a map from token ids to numbers", where=WHERE, fix=EXAMPLE)


@frozen
class LogitBias(Sampler):
    """Adds a number to the logits of single tokens; minus infinity forbids one.

    As ``logit_bias`` of the OpenAI API.
    """

    name = "logit-bias"
    order = 50
    logit_bias: Bias = field(
        default=(), converter=read_bias, metadata={"help": "what to add to tokens' logits: 15043=+1.5,29=-inf"}
    )

    def start(self, context: SamplerContext) -> SamplerState:
        outside = [token for token, _ in self.logit_bias if token >= context.n_vocab]
        if outside:
            raise SamplerError(f"token {outside[0]} is outside the vocabulary of {context.n_vocab}", where=WHERE)
        ids = np.array([token for token, _ in self.logit_bias], np.intp)
        return LogitBiasState(ids, np.array([bias for _, bias in self.logit_bias], np.float32))


@frozen(eq=False)
class LogitBiasState(SamplerState):
    ids: Ids
    bias: F32

    def apply(self, logits: F32) -> None:
        logits[self.ids] += self.bias
