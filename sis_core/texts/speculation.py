"""What a step feeds ahead: for each text that is decoded, the tokens that will or may follow its last one.

Whatever is fed ahead, a text stays the same: each of its tokens is chosen by its own chain from a row that has the bits
of a step of its own, and what was not chosen is taken back (speculative decoding, Leviathan et al. 2023, with a draw
that is a function of seed and step in the place of rejection sampling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sis_core.drafter import DraftContext
from sis_core.texts.ahead import Ahead
from sis_core.texts.budget import Budget
from sis_core.texts.drafting import Drafting
from sis_core.texts.feed import Feed
from sis_core.texts.followed import Followed
from sis_core.texts.running import Text
from sis_core.texts.session import Session
from sis_core.texts.step_cost import StepCost
from sis_core.tokenizer import Tokenizer

MARGIN = 1.03  # gains below it are noise


class Speculation:
    """Plans the steps of a scheduler.

    Args:
        session: its session.
        drafting: who guesses what no sampler forces.
    """

    def __init__(self, session: Session, drafting: Drafting) -> None:
        self._session, self._drafting = session, drafting
        self._cost = StepCost()
        self._followed: dict[int, Followed] = {}
        self._cramped = False

    @property
    def guesses(self) -> bool:
        """Whether there are drafters."""
        return bool(self._drafting.drafters)

    def follow(self, text: Text, tokenizer: Tokenizer | None, past: Sequence[Sequence[int]]) -> None:
        """Let the drafters see a text from its start, and texts of the past; SisError where one cannot start."""
        if text.writes and self.guesses:
            context = DraftContext(self._session.model.config.n_vocab, tuple(text.ids), tokenizer, tuple(past))
            self._followed[text.number] = Followed(text, self._drafting.drafters, context)

    def forget(self, number: int) -> None:
        """A text has ended; one that nobody followed is no error."""
        self._followed.pop(number, None)

    def feed(self, texts: Mapping[int, Text], budget: Budget) -> Feed:
        """The next step's parts of texts. Where tokens are fed ahead, or again after they were, all rows are alone: too
        slow for prompts, so a step that reads one feeds nothing ahead."""
        starts = {number: self._session.length(number) for number in texts}
        pending = {number: len(text.ids) - starts[number] for number, text in texts.items()}
        decodes = sum(pending.values()) == len(pending)
        ahead = self._ahead(texts) if decodes else {}
        alone = bool(ahead) or (decodes and any(map(self._session.behind, texts)))
        shares = budget.share({number: min(n, self._session.until(number)) for number, n in pending.items()})
        return Feed(texts, starts, shares, ahead, decodes=decodes, alone=alone)

    def measure(self, feed: Feed, seconds: float) -> None:
        """A step took so long."""
        if self._drafting.measured and feed.decodes:
            self._cost.measure(feed.n_rows, seconds)

    def settle(self, number: int, ahead: Ahead, n_chosen: int) -> None:
        """Take back what was fed ahead and is not among the first ``n_chosen`` tokens of a text."""
        stats = self._session.stats
        stats.rows_ahead += len(ahead.tokens)
        if (n_wasted := self._session.length(number) - n_chosen) > 0:
            stats.rows_wasted += n_wasted
            self._session.truncate(number, n_chosen)

    def cramp(self) -> None:
        """There was no room for what was planned: the next step feeds nothing ahead."""
        self._cramped = True

    def _ahead(self, texts: Mapping[int, Text]) -> dict[int, Ahead]:
        """What to feed ahead for texts that have one token to feed each; not for all."""
        room = 0 if self._cramped else self._session.step_rows - len(texts)
        self._cramped = False
        found: dict[int, Ahead] = {}
        guessed: dict[int, tuple[Sequence[int], float]] = {}
        for number, text in texts.items():
            if (n := min(room, text.n_ahead, self._session.until(number) - 1)) <= 0:
                continue
            if (forced := text.forced()).tokens:
                found[number] = forced.first(n)
                room -= len(found[number].tokens)
            elif (followed := self._followed.get(number)) and not self._session.behind(number):
                guess = followed.guess(text, n)
                if len(guess[0]):
                    guessed[number] = guess
        if not guessed:
            return found
        n_rows = len(texts) + sum(len(ahead.tokens) for ahead in found.values())
        lengths = (
            self._paying(n_rows, guessed)
            if self._drafting.measured
            else {number: len(guess) for number, (guess, _) in guessed.items()}
        )
        for number, n in lengths.items():
            if n := min(n, room):
                found[number] = Ahead(guessed[number][0][:n])
                self._session.mark(number)  # the way back of a state that sums up the text
                room -= n
        return found

    def _paying(self, n_rows: int, guessed: Mapping[int, tuple[Sequence[int], float]]) -> dict[int, int]:
        """How much of each guess to feed, so that a step gives most tokens a second: of the rows that are likeliest to
        be right over all texts as many as gain."""
        shares = [
            (acceptance**i, number) for number, (guess, acceptance) in guessed.items() for i in range(1, len(guess) + 1)
        ]
        shares.sort(key=lambda share: -share[0])
        alone = self._cost.of(n_rows)
        if alone is None:
            return {}
        tokens, best, most = float(n_rows), 0, n_rows / alone * MARGIN
        for i, (share, _) in enumerate(shares, 1):
            tokens += share
            seconds = self._cost.of(n_rows + i)
            if seconds is not None and tokens / seconds > most:
                best, most = i, tokens / seconds
        lengths: dict[int, int] = {}
        for _, number in shares[:best]:
            lengths[number] = lengths.get(number, 0) + 1
        return lengths
