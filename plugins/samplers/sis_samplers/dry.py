"""DRY: don't repeat yourself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32, I32
from sis_core.errors import SamplerError
from sis_core.sampler import Sampler, SamplerContext, SamplerState, integer_option, number_option

MOST = 1e30  # a penalty never becomes a ban


def read_breakers(given: Any) -> tuple[str, ...]:
    """Texts that end a match: a sequence of them, or one string of single characters."""
    texts = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(text, str) and text for text in texts):
        raise SamplerError(
            f"dry_breakers is {given!r}, but must be characters, or a sequence of texts", where="sampler dry"
        )
    return texts


@frozen
class DRY(Sampler):
    """Makes a token less likely the longer the repetition that it would continue.

    Where the end of the text occurred before with a length n of at least the allowed one, the token that followed
    there loses multiplier · base^(n - allowed length); a match never crosses a breaker. By p-e-w, pull request 5677 of
    oobabooga/text-generation-webui (2024).
    """

    name = "dry"
    order = 150
    dry_multiplier: float = number_option(0.8, low=0, high=1000, help="how strong; 0 changes nothing")
    dry_base: float = number_option(1.75, low=1, high=100, help="how fast the penalty grows with the repetition")
    dry_allowed_length: int = integer_option(2, low=1, help="shortest repetition that is penalised")
    dry_last_n: int = integer_option(-1, low=-1, help="how many tokens to look back; -1 for all, 0 for none")
    dry_breakers: tuple[str, ...] = field(
        default=("\n", ":", '"', "*"),
        converter=read_breakers,
        metadata={"help": "characters that end a repetition; from Python also longer texts"},
    )

    def start(self, context: SamplerContext) -> SamplerState:
        breaks = _breaker(self.dry_breakers, context)
        text = np.array(context.prompt, np.int32)
        return DRYState(self, context.n_vocab, breaks, text, match_lengths(text, breaks))


def _breaker(breakers: tuple[str, ...], context: SamplerContext) -> Callable[[int], bool]:
    """Whether a token's text holds a breaker; False without a tokenizer."""
    tokenizer = context.tokenizer
    known: dict[int, bool] = {}
    if tokenizer is None or not breakers:
        return lambda token: False
    wanted = [text.encode() for text in breakers]

    def breaks(token: int) -> bool:
        if token not in known:
            text = tokenizer.token_bytes(token, skip_special=False) if 0 <= token < context.n_vocab else b""
            known[token] = any(part in text for part in wanted)
        return known[token]

    return breaks


def match_lengths(text: I32, breaks: Callable[[int], bool]) -> I32:
    """For each place but the last, how many tokens up to it equal as many at the end: int32 ``(n - 1,)``."""
    n = len(text)
    lengths = np.zeros(max(n - 1, 0), np.int32)
    ends = np.arange(n - 1)
    for length in range(1, n):
        token = int(text[n - length])
        ends = ends[ends >= length - 1]
        ends = ends[text[ends - (length - 1)] == token]
        if breaks(token) or not len(ends):
            break
        lengths[ends] = length
    return lengths


class DRYState(SamplerState):
    """The text, and `match_lengths` of it: one pass over the text for each new token."""

    def __init__(self, options: DRY, n_vocab: int, breaks: Callable[[int], bool], text: I32, lengths: I32) -> None:
        self.options, self.n_vocab, self.breaks, self.text, self.lengths = options, n_vocab, breaks, text, lengths

    def apply(self, logits: F32) -> None:
        options, n = self.options, len(self.text)
        first = 0 if options.dry_last_n < 0 else max(n - options.dry_last_n, 0)
        lengths = self.lengths[first:]
        lengths = np.minimum(lengths, np.arange(1, len(lengths) + 1))  # a match does not reach out of the window
        at = np.flatnonzero(lengths >= options.dry_allowed_length)
        at = at[np.argsort(lengths[at], kind="stable")]
        following = self.text[first + 1 :][at].tolist()
        for token, length in dict(zip(following, lengths[at].tolist(), strict=True)).items():  # the longest comes last
            if 0 <= token < self.n_vocab and not self.breaks(token):
                logits[token] -= np.float32(_penalty(options, length))

    def accept(self, token: int) -> None:
        n = len(self.text)
        lengths = np.zeros(n, np.int32)
        if n and not self.breaks(token):
            lengths[1:] = self.lengths
            lengths += 1
            lengths[self.text != token] = 0
        # Arrays are replaced, never changed: copies share them.
        self.text, self.lengths = np.append(self.text, np.int32(token)), lengths

    def copy(self) -> DRYState:
        return DRYState(self.options, self.n_vocab, self.breaks, self.text, self.lengths)


def _penalty(options: DRY, length: int) -> float:
    growth = (length - options.dry_allowed_length) * math.log(options.dry_base)
    return min(MOST, options.dry_multiplier * math.exp(min(growth, 80.0)))
