"""What a step feeds ahead: for each text that is decoded, the tokens that will or may follow its last one.

Whatever is fed ahead, a text stays the same: each of its tokens is chosen by its own chain from a row that has the bits
of a step of its own, and what was not chosen is taken back (speculative decoding, Leviathan et al. 2023, with a draw
that is a function of seed and step in the place of rejection sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from sis_core.drafter import DraftContext
from sis_core.step import MultiStepLimit
from sis_core.texts.ahead import NOTHING, Ahead
from sis_core.texts.allowance import Allowance
from sis_core.texts.budget import Budget
from sis_core.texts.drafting import Drafting
from sis_core.texts.feed import Feed, Share
from sis_core.texts.feeding import Guessed
from sis_core.texts.followed import Followed, Guess
from sis_core.texts.multi_step import MultiStepSize
from sis_core.texts.running import Text
from sis_core.texts.session import Session
from sis_core.texts.step_cost import StepCost
from sis_core.tokenizer import Tokenizer

MARGIN = 1.03  # gains below it are noise


class Price(NamedTuple):
    """Seconds of a step without guesses, what each row that is fed ahead adds to them, and what each token that need
    not be fed again saves."""

    step: float
    row: float
    token: float


class Speculation:
    """Plans the steps of a scheduler.

    Args:
        session: its session.
        drafting: who guesses what no sampler forces.
        clock: what measures how long that takes.
    """

    def __init__(self, session: Session, drafting: Drafting, clock: Callable[[], float]) -> None:
        self._session, self._drafting, self._clock = session, drafting, clock
        self._cost, self._allowance, self._steps = StepCost(), Allowance(), MultiStepSize()
        self._followed: dict[int, Followed] = {}
        self._fed: dict[int, str] = {}  # texts of the step whose guesses are fed, and whose these are
        self._price = Price(0.0, 0.0, 0.0)
        self._cramped = False

    @property
    def guesses(self) -> bool:
        """Whether there are drafters."""
        return bool(self._drafting.drafters)

    def follow(self, text: Text, tokenizer: Tokenizer | None, past: Callable[[], Sequence[Sequence[int]]]) -> None:
        """Let the drafters see a text, and texts of the past. Where guesses are measured they start with the first that
        is asked for, else at once: SisError where one cannot."""
        if not (text.writes and self.guesses):
            return
        n_vocab = self._session.model.config.n_vocab
        followed = Followed(
            text, self._drafting.drafters, lambda ids: DraftContext(n_vocab, tuple(ids), tokenizer, tuple(past()))
        )
        followed.due = self._allowance.now
        if not self._drafting.measured:
            followed.start()
        self._followed[text.number] = followed

    def forget(self, number: int) -> None:
        """A text has ended; one that nobody followed is no error."""
        self._followed.pop(number, None)

    def feed(self, texts: Sequence[Text], budget: Budget) -> Feed:
        """The next step's shares of texts. Where tokens are fed ahead, or again after they were, all rows are alone:
        too slow for prompts, so a step that reads one feeds nothing ahead."""
        shares: list[Share] = []
        decodes = greedy = True
        for text in texts:
            start = self._session.length(text.number)
            n = len(text.ids) - start
            decodes, greedy = decodes and n == 1, greedy and text.greedy
            shares.append(Share(text, start, n))
        if not decodes:
            waiting = {share.text.number: share for share in shares}
            pending = {number: min(share.n, self._session.until(number)) for number, share in waiting.items()}
            rows = budget.share(pending)
            shares = [waiting[number]._replace(n=n) for number, n in rows.items()]
            return Feed(shares, decodes=False, alone=False, n_rows=sum(rows.values()), greedy=greedy)
        if not (ahead := self._ahead(texts)):
            more = self._multi_step(texts[0]) if greedy and len(texts) == 1 else None
            return Feed(shares, decodes=True, alone=None, n_rows=len(shares), greedy=greedy, multi_step=more)
        self._steps.guessed()
        shares = [share._replace(ahead=ahead.get(share.text.number, NOTHING)) for share in shares]
        n_ahead = sum(len(each.tokens) for each in ahead.values())
        return Feed(shares, decodes=True, alone=True, n_rows=len(shares) + n_ahead, greedy=greedy)

    def _multi_step(self, text: Text) -> MultiStepLimit | None:
        """How far a backend may go on by itself with the only text; drafters that always guess see every token."""
        if text.forces or (self.guesses and not self._drafting.measured):
            return None
        n = min(self._steps.n(), text.n_ahead, self._session.until(text.number) - 1)
        return MultiStepLimit(n, text.ends) if n > 0 else None

    def measure(self, feed: Feed, seconds: float) -> None:
        """A step took so long, or several at once."""
        n_steps = 1
        if feed.decodes and len(feed.shares) == 1 and not self._fed:
            n_steps += len(feed.shares[0].ahead.tokens)
            self._steps.measure(n_steps, seconds)
        if self._drafting.measured and feed.decodes:
            self._cost.measure(feed.n_rows, seconds / n_steps)
            self._allowance.step(seconds, len(feed.shares))

    def settle(self, number: int, ahead: Ahead, n_chosen: int) -> None:
        """Take back what was fed ahead and is not among the first ``n_chosen`` tokens of a text."""
        n_fed, stats = len(ahead.tokens), self._session.stats
        stats.rows_ahead += n_fed
        if (n_wasted := max(0, self._session.length(number) - n_chosen)) > 0:
            stats.rows_wasted += n_wasted
            self._session.truncate(number, n_chosen)
        if (drafter := self._fed.get(number)) is not None:
            guessed = stats.guessed.setdefault(drafter, Guessed())
            guessed.fed += n_fed
            guessed.chosen += n_fed - n_wasted
            self._spend(number, n_fed * self._price.row - (n_fed - n_wasted) * self._price.token)

    def cramp(self) -> None:
        """There was no room for what was planned: the next step feeds nothing ahead."""
        self._cramped = True

    def _ahead(self, texts: Sequence[Text]) -> dict[int, Ahead]:
        """What to feed ahead for texts that have one token to feed each; not for all."""
        cramped, self._cramped, self._fed = self._cramped, False, {}
        found: dict[int, Ahead] = {}
        asked: dict[int, int] = {}
        room = -1  # not looked up yet
        for text in texts:
            number = text.number
            followed = self._followed.get(number)
            due = followed is not None and followed.due <= self._allowance.now and self._bits_are_kept(len(texts))
            if not due and not text.forces:
                continue
            if room < 0:
                room = 0 if cramped else self._session.step_rows - len(texts)
            if (n := min(room, text.n_ahead, self._session.until(number) - 1)) <= 0:
                continue
            if text.forces and (forced := text.forced()).tokens:
                tokens, n_blind = forced.first(n)
                found[number] = Ahead(self._session.valid(tokens), n_blind)
                room -= len(tokens)
            elif due:
                asked[number] = n
        if asked:
            n_rows = len(texts) + sum(len(ahead.tokens) for ahead in found.values())
            self._guess(asked, n_rows, room, found)
        return found

    def _bits_are_kept(self, n_texts: int) -> bool:
        """Whether a step whose rows are alone has the bits of one whose rows are not. Guesses that are fed or not as
        the clock says must not choose between the two."""
        return n_texts == 1 or not self._drafting.measured or self._session.model.forward.batch_invariant

    def _guess(self, asked: Mapping[int, int], n_rows: int, room: int, found: dict[int, Ahead]) -> None:
        """Add what drafters guess of so many tokens of each text to what is ``found``, as far as there is room."""
        began = self._clock()
        guesses: dict[int, Guess] = {}
        for number, n in asked.items():
            if not self._session.behind(number) and (guess := self._followed[number].guess(n)).tokens:
                guesses[number] = guess
        lengths = {number: len(guess.tokens) for number, guess in guesses.items()}
        if self._drafting.measured and guesses:
            lengths = self._paying(n_rows, guesses)
        for number, n in lengths.items():
            if n := min(n, room):
                found[number] = Ahead(guesses[number].tokens[:n])
                self._fed[number] = guesses[number].drafter
                self._session.mark(number)  # the way back of a state that sums up the text
                room -= n
        if self._drafting.measured:
            seconds = (self._clock() - began) / len(asked)
            for number in asked:
                self._spend(number, seconds)

    def _spend(self, number: int, seconds: float) -> None:
        if self._drafting.measured:
            followed = self._followed[number]
            followed.due = self._allowance.due(followed.due, seconds, self._price.step)

    def _paying(self, n_rows: int, guesses: Mapping[int, Guess]) -> dict[int, int]:
        """How much of each guess to feed, so that a step gives most tokens a second: of the rows that are likeliest to
        be right over all texts as many as gain."""
        if (alone := self._cost.of(n_rows)) is None:
            return {}
        shares = [
            (guess.acceptance**i, number) for number, guess in guesses.items() for i in range(1, len(guess.tokens) + 1)
        ]
        shares.sort(key=itemgetter(0), reverse=True)
        tokens, best, most = float(n_rows), 0, n_rows / alone * MARGIN
        self._price = Price(alone, 0.0, alone / n_rows)
        for i, (share, _) in enumerate(shares, 1):
            tokens += share
            seconds = self._cost.of(n_rows + i)
            if seconds is not None and tokens / seconds > most:
                best, most = i, tokens / seconds
                self._price = self._price._replace(row=(seconds - alone) / i)
        lengths: dict[int, int] = {}
        for _, number in shares[:best]:
            lengths[number] = lengths.get(number, 0) + 1
        return lengths
