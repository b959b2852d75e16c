"""Prompt lookup: what followed the last tokens when they stood in the text before."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.errors import SisError
from sis_core.sampler import integer_option
from sis_drafters.copying import copied


@frozen
class Lookup(Drafter):
    """Saxena 2023, "Prompt Lookup Decoding": the longest of the text's last n-grams that stood in it before."""

    name = "lookup"

    most: int = integer_option(8, low=1, high=64, help="tokens of a guess")
    longest: int = integer_option(4, low=1, high=16, help="tokens that must agree at best")
    shortest: int = integer_option(2, low=1, high=16, help="tokens that must agree at least")

    def __attrs_post_init__(self) -> None:
        if self.shortest > self.longest:
            raise SisError(
                f"shortest is {self.shortest}, and longest only {self.longest}: it would never guess",
                where=f"drafter {self.name}",
            )

    def start(self, context: DraftContext) -> DraftState:
        state = LookupState(self, [], {}, None)
        for token in context.tokens:
            state.accept(token)
        return state


class LookupState(DraftState):
    """``places`` has the place after the latest of each n-gram; ``at`` that from which the next guess is copied."""

    def __init__(self, options: Lookup, tokens: list[int], places: dict[tuple[int, ...], int], at: int | None) -> None:
        self._options, self._tokens, self._places, self._at = options, tokens, places, at

    def propose(self, k: int) -> list[int]:
        return [] if self._at is None else copied(self._tokens, self._at, min(k, self._options.most))

    def accept(self, token: int) -> None:
        tokens, options = self._tokens, self._options
        tokens.append(token)
        self._at = None
        for n in range(min(options.longest, len(tokens)), options.shortest - 1, -1):
            gram = tuple(tokens[-n:])
            if self._at is None:
                self._at = self._places.get(gram)
            self._places[gram] = len(tokens)

    def copy(self) -> Self:
        return type(self)(self._options, list(self._tokens), dict(self._places), self._at)
