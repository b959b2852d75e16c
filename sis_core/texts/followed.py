"""A text as its drafters see it: what they guess, how often they were right, and when they may guess again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from operator import index
from typing import NamedTuple, SupportsIndex

from attrs import define, field

from sis_core.drafter import DraftContext, Drafter, DraftState
from sis_core.errors import FOREIGN
from sis_core.texts.running import Text

log = logging.getLogger(__name__)

MOST_AHEAD = 16  # tokens of a guess
FADING = 0.96  # what a guess counts for after the next one
DOUBT = 4.0  # guesses that are held to have been wrong before the first


class Guess(NamedTuple):
    """Tokens that may come next, whose they are, and the share of that drafter's guesses that came in this text."""

    tokens: Sequence[int] = ()
    drafter: str = ""
    acceptance: float = -1.0


NO_GUESS = Guess()


@define(eq=False)
class _Guesser:
    """One drafter on one text. Its guesses are held against what comes, whether they were fed or not."""

    name: str
    state: DraftState
    guess: Sequence[int] = ()
    right: float = 0.0
    tried: float = field(default=DOUBT)

    def see(self, new: Sequence[int], *, known: bool) -> None:
        """The text went on so; not ``known`` where what came first has fallen out of a context that is full."""
        for guessed, token in zip(self.guess if known else (), new, strict=False):
            self.right, self.tried = self.right * FADING + (guessed == token), self.tried * FADING + 1
            if guessed != token:
                break
        for token in new:
            self.state.accept(token)


class Followed:
    """Drafters on one text, which see it when they are asked for a guess. One that fails is left out from then on.

    Args:
        begin: what they are told when they start, which is when they are asked first.

    Attributes:
        due: when they may guess again; see `sis_core.texts.allowance`.
    """

    def __init__(self, text: Text, drafters: Sequence[Drafter], begin: Callable[[Sequence[int]], DraftContext]) -> None:
        self._text, self._drafters, self._begin = text, drafters, begin
        self._guessers: list[_Guesser] | None = None
        self._n_seen = 0
        self._n_vocab = 0
        self.due = 0.0

    def start(self) -> None:
        """Let them start now; SisError where one cannot."""
        context = self._begin(self._text.ids)
        self._guessers = [_Guesser(drafter.name, drafter.start(context)) for drafter in self._drafters]
        self._n_seen, self._n_vocab = self._text.n_written, context.n_vocab

    def guess(self, n: int) -> Guess:
        """At most ``n`` tokens that may come next, by the drafter that is right most often."""
        text = self._text
        if self._guessers is None:
            self._start_late()
        assert self._guessers is not None
        n_new = text.n_written - self._n_seen
        new = text.ids[max(0, len(text.ids) - n_new) :]
        self._n_seen = text.n_written
        best = NO_GUESS
        for guesser in list(self._guessers):
            try:
                guesser.see(new, known=len(new) == n_new)
                guesser.guess = self._valid(guesser.state.propose(min(n, MOST_AHEAD)), n)
            except MemoryError:
                raise
            except FOREIGN as error:
                log.warning("sequence %d: drafter %s failed and is left out: %s", text.number, guesser.name, error)
                self._guessers.remove(guesser)
                continue
            acceptance = guesser.right / guesser.tried
            if guesser.guess and acceptance > best.acceptance:
                best = Guess(guesser.guess, guesser.name, acceptance)
        return best

    def _start_late(self) -> None:
        try:
            self.start()
        except MemoryError:
            raise
        except FOREIGN as error:
            log.warning("sequence %d: nobody guesses: %s", self._text.number, error)
            self._guessers = []

    def _valid(self, guess: Iterable[SupportsIndex], n: int) -> list[int]:
        """At most ``n`` of them, as far as they are tokens of the model; TypeError for what is no whole number."""
        found = map(index, islice(guess, n))
        return list(takewhile(lambda token: 0 <= token < self._n_vocab, found))
