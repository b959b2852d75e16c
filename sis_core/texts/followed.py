"""A text as its drafters see it: what they guess, and how often they were right."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from attrs import define, field

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.texts.running import Text

log = logging.getLogger(__name__)

MOST_AHEAD = 16  # tokens of a guess
FADING = 0.96  # what a guess counts for after the next one
DOUBT = 4.0  # guesses that are held to have been wrong before the first


@define(eq=False)
class _Guesser:
    """One drafter on one text. Its guesses are held against what comes, whether they were fed or not."""

    name: str
    state: DraftState
    guess: Sequence[int] = ()
    right: float = 0.0
    tried: float = field(default=DOUBT)

    @property
    def acceptance(self) -> float:
        """The share of guessed tokens that came."""
        return self.right / self.tried

    def accept(self, token: int) -> None:
        if len(self.guess):
            came = self.guess[0] == token
            self.right, self.tried = self.right * FADING + came, self.tried * FADING + 1
            self.guess = self.guess[1:] if came else ()
        self.state.accept(token)


class Followed:
    """Drafters on one text. SisError where one cannot start; one that fails later is left out from then on."""

    def __init__(self, text: Text, drafters: Sequence[Drafter], context: DraftContext) -> None:
        self._n_vocab = context.n_vocab
        self._guessers = [_Guesser(drafter.name, drafter.start(context)) for drafter in drafters]
        self._n_seen = text.n_written

    def guess(self, text: Text, n: int) -> tuple[Sequence[int], float]:
        """At most ``n`` tokens that may come next, by the drafter that is right most often, and how often it is."""
        new = text.ids[len(text.ids) - (text.n_written - self._n_seen) :]
        self._n_seen = text.n_written
        best: Sequence[int] = ()
        acceptance = -1.0
        for guesser in list(self._guessers):
            try:
                for token in new:
                    guesser.accept(token)
                guesser.guess = self._valid(guesser.state.propose(min(n, MOST_AHEAD)))[:n]
            except MemoryError:
                raise
            except Exception as error:
                log.warning("sequence %d: drafter %s failed and is left out: %s", text.number, guesser.name, error)
                self._guessers.remove(guesser)
                continue
            if len(guesser.guess) and guesser.acceptance > acceptance:
                best, acceptance = guesser.guess, guesser.acceptance
        return best, acceptance

    def _valid(self, guess: Sequence[int]) -> Sequence[int]:
        """As far as they are tokens of the model."""
        wrong = next((i for i, token in enumerate(guess) if not 0 <= token < self._n_vocab), None)
        return guess if wrong is None else guess[:wrong]
