"""Logit bias."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, Ids
from sis_core.errors import SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState

WHERE = "sampler logit-bias"
EXAMPLE = """write 15043=+1.5,word=-inf, and what is no plain word in quotes: '" word"=-inf'"""
ITEM = re.compile(r"""\s*(?P<token>"(?:[^"\\]|\\.)*"|[^",=]+?)\s*=\s*(?P<bias>[^,=]+?)\s*(?:,|$)""")
Bias = tuple[tuple[int | str, float], ...]


def read_bias(given: Any) -> Bias:
    """Pairs of token and bias, ids before texts, from a map, from text, or from a sequence of pairs or texts.

    A token is an id, also as text, or the text of one token; quotes, as in JSON, make any text one.
    """
    pairs: dict[int | str, float] = {}
    for token, bias in _pairs(given):
        key = _token(token)
        try:
            value = float(bias)
        except (TypeError, ValueError):
            raise SamplerError(f"the bias of {key!r} is {bias!r}, not a number", where=WHERE, fix=EXAMPLE) from None
        if math.isnan(value) or value == math.inf:
            raise SamplerError(f"the bias of {key!r} is {value:g}, but must be finite or -inf", where=WHERE)
        if key in pairs:
            raise SamplerError(f"token {key!r} is given twice", where=WHERE)
        pairs[key] = value
    return tuple(sorted(pairs.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))


def _token(given: Any) -> int | str:
    """The id, or the text, by which a token is named."""
    if isinstance(given, str):
        if given[:1] == given[-1:] == '"' and len(given) > 1:
            given = _unquoted(given)
        elif re.fullmatch(r"-?[0-9]+", given.strip()):
            given = int(given)
    if isinstance(given, str) and given:
        return given
    if isinstance(given, bool) or not hasattr(given, "__index__") or given.__index__() < 0:
        raise SamplerError(f"{given!r} is neither a token id, 0 or more, nor a text", where=WHERE, fix=EXAMPLE)
    return int(given.__index__())


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        raise SamplerError(f"{text} is no text in quotes", where=WHERE, fix=EXAMPLE) from None


def _pairs(given: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(given, Mapping):
        yield from given.items()
    elif isinstance(given, str):
        at = 0
        while at < len(given.rstrip(", ")):
            if (item := ITEM.match(given, at)) is None:
                raise SamplerError(f"{given[at:]!r} does not begin with TOKEN=NUMBER", where=WHERE, fix=EXAMPLE)
            yield item["token"], item["bias"]
            at = item.end()
    elif isinstance(given, Iterable):
        for part in given:
            if isinstance(part, str):
                yield from _pairs(part)
            elif isinstance(part, tuple | list) and len(part) == 2:
                yield part[0], part[1]
            else:
                raise SamplerError(f"{part!r} is not a pair of token and number", where=WHERE, fix=EXAMPLE)
    else:
        raise SamplerError(f"{given!r} is not a map from tokens to numbers", where=WHERE, fix=EXAMPLE)


@frozen
class LogitBias(Sampler):
    """Adds a number to the logits of single tokens; minus infinity forbids one.

    As ``logit_bias`` of the OpenAI API, and tokens may be named by their text, control tokens by their names.
    """

    name = "logit-bias"
    order = 50
    logit_bias: Bias = field(
        default=(),
        converter=read_bias,
        metadata={"help": "what to add to tokens' logits, by id or by text: 15043=+1.5,word=-inf"},
    )

    def start(self, context: SamplerContext) -> SamplerState:
        biases: dict[int, float] = {}
        for token, bias in self.logit_bias:
            id = token if isinstance(token, int) else _id_of(token, context)
            if id >= context.n_vocab:
                raise SamplerError(f"token {id} is outside the vocabulary of {context.n_vocab}", where=WHERE)
            if id in biases:
                raise SamplerError(f"token {id} is given twice, the second time as {token!r}", where=WHERE)
            biases[id] = bias
        return LogitBiasState(np.array(list(biases), np.intp), np.array(list(biases.values()), np.float32))


def _id_of(text: str, context: SamplerContext) -> int:
    """The one token that ``text`` is; SamplerError where it is more."""
    if context.tokenizer is None:
        raise SamplerError(f"there is no vocabulary to find {text!r} in", where=WHERE, fix="give token ids")
    ids = context.tokenizer.encode(text, add_special=False, parse_special=True)
    if len(ids) != 1:
        spelt = ", ".join(f"{id} {context.tokenizer.token_text(id)!r}" for id in ids[:8])
        raise SamplerError(
            f"{text!r} is not one token but {len(ids)}: {spelt}",
            where=WHERE,
            fix="name the ids that are meant; `sis tokenize` shows them",
        )
    return ids[0]


@frozen(eq=False)
class LogitBiasState(SamplerState):
    ids: Ids
    bias: F32

    def apply(self, logits: F32) -> None:
        logits[self.ids] += self.bias
