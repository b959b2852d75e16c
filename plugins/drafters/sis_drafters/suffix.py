"""Repeated stretches: what followed the longest end of the text that stood in it, or in a past text, before."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.sampler import integer_option
from sis_drafters.automaton import SuffixAutomaton
from sis_drafters.copying import copied


@frozen
class Suffix(Drafter):
    """After Oliaro et al. 2024, "SuffixDecoding": the longer the stretch that agrees, the more tokens it guesses."""

    name = "suffix"
    automatic = True

    most: int = integer_option(16, low=1, high=64, help="tokens of a guess")
    shortest: int = integer_option(2, low=1, high=64, help="tokens that must agree at least")
    past: int = integer_option(4096, low=0, help="tokens of past texts to remember")

    def start(self, context: DraftContext) -> DraftState:
        automaton = SuffixAutomaton()
        texts, room = [], self.past
        for text in reversed(context.past):
            texts.append(text[max(0, len(text) - room) :] if room else ())
            room -= len(texts[-1])
        for i, text in enumerate(reversed(texts)):
            for token in text:
                automaton.append(token)
            automaton.append(-1 - i)  # no token: nothing is repeated across texts
        for token in context.tokens:
            automaton.append(token)
        return SuffixState(self, automaton)


class SuffixState(DraftState):
    """A text in an automaton, after past ones."""

    def __init__(self, options: Suffix, automaton: SuffixAutomaton) -> None:
        self._options, self._automaton = options, automaton

    def propose(self, k: int) -> list[int]:
        length, after = self._automaton.match
        if length < self._options.shortest:
            return []
        guess = copied(self._automaton.tokens, after, min(k, self._options.most, 2 * length))
        end = next((i for i, token in enumerate(guess) if token < 0), len(guess))
        return guess[:end]

    def accept(self, token: int) -> None:
        self._automaton.append(token)

    def copy(self) -> Self:
        return type(self)(self._options, self._automaton.copy())
