"""Repeated stretches: what followed the longest end of the text that stood in it, or in a past text, before."""

from __future__ import annotations

from array import array
from typing import Self

import numpy as np
from attrs import frozen

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.sampler import integer_option
from sis_drafters.copying import copied
from sis_drafters.repeats import WINDOW, latest_repeat

NO_TOKEN = -1  # between texts: nothing is guessed across


@frozen
class Suffix(Drafter):
    """After Oliaro et al. 2024, "SuffixDecoding": the longer the stretch that agrees, the more tokens it guesses."""

    name = "suffix"
    automatic = True

    most: int = integer_option(16, low=1, high=64, help="tokens of a guess")
    shortest: int = integer_option(2, low=1, high=WINDOW, help="tokens that must agree at least")
    past: int = integer_option(4096, low=0, help="tokens of past texts to remember")

    def start(self, context: DraftContext) -> DraftState:
        texts, room = [], self.past
        for text in reversed(context.past):
            if room <= 0:
                break
            texts.append(text[max(0, len(text) - room) :])
            room -= len(texts[-1])
        tokens = array("i", [NO_TOKEN] * WINDOW)
        for text in reversed(texts):
            tokens.extend(text)
            tokens.append(NO_TOKEN)
        tokens.extend(context.tokens)
        return SuffixState(self, tokens)


class SuffixState(DraftState):
    """A text after past ones."""

    def __init__(self, options: Suffix, tokens: array[int]) -> None:
        self._options, self._tokens = options, tokens

    def propose(self, k: int) -> list[int]:
        length, after = latest_repeat(np.frombuffer(self._tokens, np.int32))
        if length < self._options.shortest:
            return []
        guess = copied(self._tokens, after, min(k, self._options.most, 2 * length))
        return guess[: guess.index(NO_TOKEN)] if NO_TOKEN in guess else guess

    def accept(self, token: int) -> None:
        self._tokens.append(token)

    def copy(self) -> Self:
        return type(self)(self._options, self._tokens[:])
