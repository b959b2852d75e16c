"""Many texts over one session: who is let in, what each step holds, and what happens when the cache is full.

Texts join and leave at any step and fail alone. Steps of mixed prompts and decoding texts are those of Sarathi (Agrawal
et al. 2023); to take pages away from the newest text and compute them again later is what vLLM does (Kwon et al. 2023).
"""

from __future__ import annotations

import itertools
import logging
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter

from sis_core.cache.pages import PAGE_SIZE
from sis_core.closing import Closing
from sis_core.errors import ClosedError, ContextError, MemoryLimitError, SisError
from sis_core.loading.checks import check_option
from sis_core.texts.ahead import Ahead
from sis_core.texts.budget import Budget
from sis_core.texts.context import retention_of
from sis_core.texts.drafting import NOBODY, Drafting
from sis_core.texts.part import Rows, Want
from sis_core.texts.prefixes import Prefixes, Scope
from sis_core.texts.request import Piece, Request
from sis_core.texts.retention import EvictionError
from sis_core.texts.running import Text, ours, shifted
from sis_core.texts.session import Session
from sis_core.texts.silent import tokenizer_or_silence
from sis_core.texts.speculation import Speculation
from sis_core.texts.writer import Writer
from sis_core.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MARK_EVERY = 2048  # rows between two ways back that a cache is asked to keep


class Scheduler(Closing):
    """Continues any number of texts together; used from one thread. It owns the session, and closes it.

    Args:
        session: a fresh one; its sequences are the scheduler's own numbers.
        reuse: texts that begin alike share their beginning, also with texts that ended: these stay as long as nobody
            else needs their pages.
        stall: seconds that texts which are decoding may wait for prompts in one step; None for a whole step of rows.
        clock: what measures them.
        drafting: who guesses what comes next; see `sis_core.texts.speculation`.
    """

    def __init__(
        self,
        session: Session,
        *,
        reuse: bool = True,
        stall: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        drafting: Drafting = NOBODY,
    ) -> None:
        check_option("reuse", reuse, kind=bool)
        self.session = session
        self._reuse, self._clock = reuse, clock
        self._budget = Budget(session.step_rows, stall)
        self._speculation = Speculation(session, drafting, clock)
        self._kept = Prefixes()  # texts that ended
        self._read = Prefixes()  # prompts of texts that run
        self._numbers = itertools.count()
        self._waiting: list[Text] = []  # by rank, as those that run
        self._running: list[Text] = []
        self._pieces: list[Piece] = []
        self._tokenizer: Tokenizer | None = None  # when the first text is written
        self._want: Want = "logits"

    @property
    def busy(self) -> bool:
        """Whether another `step` would do anything."""
        return bool(self._running or self._waiting or self._pieces)

    @property
    def n_running(self) -> int:
        """Texts that were let in."""
        return len(self._running)

    @property
    def running(self) -> list[int]:
        """Their numbers."""
        return [text.number for text in self._running]

    @property
    def n_waiting(self) -> int:
        """Texts that wait for room, those that had to give way among them."""
        return len(self._waiting)

    @property
    def n_kept(self) -> int:
        """Texts that ended and are kept for others that begin alike."""
        return len(self._kept)

    def add(self, request: Request) -> int:
        """Let a text wait for its turn, at any time; the number that its pieces will carry as their ``sequence``.

        What is wrong with the request comes as its only piece. ClosedError after `close`.
        """
        number, degraded = next(self._numbers), self.session.stats.degraded
        try:
            check_option("request", request, kind=Request)
            text = self._text(number, request)
        except (MemoryError, ClosedError):
            raise
        except Exception as error:
            self.session.drop(number)
            self._pieces.append(Piece.of_error(ours(error, number), number))
        else:
            text.degraded |= self.session.stats.degraded > degraded
            insort(self._waiting, text, key=_rank)
        return number

    def cancel(self, text: int, *, keep: bool = False) -> None:
        """End a text without another piece; one that has ended is no error.

        Its pages are freed, or with ``keep`` stay for others that begin alike, as if it had ended by itself.
        """
        for texts in (self._running, self._waiting):
            for found in texts:
                if found.number == text:
                    return self._end(found, texts, keep=keep)
        self._pieces = [piece for piece in self._pieces if piece.sequence != text]
        return None

    def step(self) -> list[Piece]:
        """Run one step of the model and return what it completed; each text's last piece has a ``finish_reason``.

        What goes wrong with one text is its last piece. What ends all is raised: a failing backend, an interrupt, no
        memory. All texts are gone then, and others may be added.
        """
        try:
            if self._waiting:
                self._admit()
            while self._running and not self._advance():
                pass
        except BaseException:
            self._drop_all()
            raise
        pieces, self._pieces = self._pieces, []
        return pieces

    def keep(self, tokens: Sequence[int], data: Iterable[bytes]) -> None:
        """Keep a saved text for others that begin alike, as if it had ended here; see `Session.load`."""
        number = next(self._numbers)
        self.session.load(tokens, data, number)
        if (gone := self._kept.add(Scope("", None), number, tokens)) is not None:
            self.session.drop(gone)

    def kept(self, tokens: Sequence[int]) -> tuple[list[int], Iterator[bytes]] | None:
        """The text among those that ended that begins most like ``tokens``: its tokens, and what `keep` takes."""
        number, _ = self._kept.find(Scope("", None), tokens)
        if number is None or self.session.behind(number) or self.session.n_evicted(number):
            return None
        return self.session.tokens(number), self.session.save(number)

    def run(self) -> Iterator[Piece]:
        """Pieces as they come, until no text is left."""
        while self._running or self._waiting or self._pieces:
            yield from self.step()

    def close(self) -> None:
        """Free the cache. Closing twice is no error."""
        self.session.close()

    def _text(self, number: int, request: Request) -> Text:
        """A text that can start; SisError when it cannot."""
        session, model, n_ctx = self.session, self.session.model, self.session.n_ctx
        ids = session.valid(request.prompt)
        if not ids:
            raise ContextError("the prompt has no tokens", where="prompt", fix="give at least one character")
        if request.context == "shift" and len(ids) > n_ctx:
            ids = shifted(ids, n_ctx, request.n_keep)
        session.retain(number, kept := retention_of(request.context, n_ctx, len(ids), request.most_tokens))
        session.check_room(len(ids), number)
        writer = None
        if request.want == "text":
            self._tokenizer = self._tokenizer or tokenizer_or_silence(model)
            writer = Writer(request, ids, model.config.n_vocab, self._tokenizer)
        session.adapt(number, request.adapter)
        text = Text(number, request, ids, writer, session.limit(number), retention=kept, degraded=model.degraded > 0)
        self._speculation.follow(text, self._tokenizer, lambda: self._kept.texts(text.scope))
        return text

    def _admit(self) -> None:
        """Let in whom there is room for, strictly by rank: who is passed over once might wait for ever."""
        while self._waiting and len(self._running) < self._budget.most_texts:
            text = self._waiting[0]
            text.n_known = self._share(text)
            if not self._make_room_for(text):
                return self._let_go(text)
            del self._waiting[0]
            insort(self._running, text, key=_rank)
            if text.n_cached is None:
                text.n_cached = text.n_known
        return None

    def _share(self, text: Text) -> int:
        """Let a text begin with what another has in common with it; how many tokens need not be fed."""
        if text.reading:
            return 0
        most = len(text.ids) - 1  # the last one is fed for its logits
        ways: list[tuple[int, int]] = []
        for texts, whole in (self._kept, 1), (self._read, PAGE_SIZE):  # who goes on writing shares no page in part
            source, n = texts.find(text.scope, text.ids)
            if source is not None:
                texts.use(source)
                ways.append((self.session.n_shared(source, min(n, most) // whole * whole, text.retention), source))
        n, source = max(ways, default=(0, None))
        if source is not None and n:
            self.session.fork(source, text.number, n)
            self.session.retain(text.number, text.retention)
        return n

    def _make_room_for(self, text: Text) -> bool:
        """Whether what a text has to feed fits beside what others have, with a page more for each.

        Kept texts make room for it, and so do running ones of less priority.
        """
        while self._running:  # else nobody will make more room than there is
            if sum(map(self._pages_to_come, [*self._running, text])) * PAGE_SIZE <= self.session.n_free:
                break
            if (kept := self._kept.pop()) is not None:
                self.session.drop(kept)
            elif self._running[-1].request.priority < text.request.priority:
                self._give_way(self._running[-1])
            else:
                return False
        return True

    def _pages_to_come(self, text: Text) -> int:
        """Pages that a text will take for the tokens that it has, and a page more if it may grow by that."""
        return text.pages_to_come(self.session.length(text.number), self.session.n_evicted(text.number))

    def _advance(self) -> bool:
        """One step of the backend; False when there was no room for it and somebody had to give way."""
        feed = self._speculation.feed(self._turn(), self._budget)
        session, stats = self.session, self.session.stats
        degraded, began = stats.degraded, self._clock()
        try:
            results = session.run(feed.parts, feed.asked(self._want))
        except MemoryLimitError as error:
            if any(share.ahead.tokens for share in feed.shares):
                self._speculation.cramp()
            else:
                self._make_room(error)
            return False
        except EvictionError as error:
            (text,) = (text for text in self._running if text.number == error.sequence)
            self._fail(text, error, keep=False)
            return False
        seconds, feed = self._clock() - began, feed.gone_on(results)
        if not feed.decodes:
            self._budget.measure({share.text.number: share.n for share in feed.shares}, seconds)
        self._speculation.measure(feed, seconds)
        for text, start, n, ahead in feed.shares:
            number, end, rows = text.number, start + n, results[text.number]
            if stats.degraded > degraded:
                text.degraded = True
            if end == text.n_prompt:
                if self._reuse:
                    self._read.add(text.scope, number, text.ids[:end])
                session.mark(number)
            if len(rows):
                self._take(text, rows, end, ahead)
            end = session.length(number) if ahead.tokens else end  # as far as these were chosen
            if end // MARK_EVERY > start // MARK_EVERY:
                session.mark(number)
        return True

    def _turn(self) -> list[Text]:
        """Whose step it is: when some texts want logits and others hidden states, they take turns."""
        if others := [text for text in self._running if text.want != self._want]:
            self._want = others[0].want
        return others or self._running

    def _take(self, text: Text, rows: Rows, end: int, ahead: Ahead) -> None:
        """Hand a text its rows; whatever fails in it ends it alone. What was fed ahead and not chosen is taken back."""
        pieces = self._pieces
        n_before = len(pieces)
        try:
            text.take(rows, end, ahead, pieces)
        except MemoryError:
            raise
        except Exception as error:
            pieces.append(text.fail(ours(error, text.number)))
        if len(pieces) == n_before:
            return
        last = pieces[-1]
        if ahead.tokens:  # the last token that was chosen is still to be fed
            self._speculation.settle(text.number, ahead, len(text.ids) - (last.token is not None))
        if last.finish_reason:
            self._end(text, self._running)
        elif text.overflows:
            self._read.discard(text.number)
            self.session.truncate(text.number, self.session.reach(text.number, text.shift()))

    def _end(self, text: Text, texts: list[Text], *, keep: bool = True) -> None:
        texts.remove(text)
        self._speculation.forget(text.number)
        self._read.discard(text.number)
        gone: int | None = text.number
        if self._reuse and keep and self.session.length(text.number):
            gone = self._kept.add(text.scope, text.number, self.session.tokens(text.number))
        if gone is not None:
            self.session.drop(gone)

    def _make_room(self, error: MemoryLimitError) -> None:
        """The cache is full: a kept text goes, or the last in rank gives way; a text that is alone cannot go on."""
        if (kept := self._kept.pop()) is not None:
            self.session.drop(kept)
        elif len(self._running) > 1:
            self._give_way(self._running[-1])
        else:
            self._fail(self._running[0], error)

    def _fail(self, text: Text, error: SisError, *, keep: bool = True) -> None:
        self._pieces.append(text.fail(error))
        self._end(text, self._running, keep=keep)

    def _give_way(self, text: Text) -> None:
        """Take a text's pages away; it is fed again, as far as it had come, when its turn comes."""
        n = self.session.length(text.number)
        log.info("the cache is full: text %d gives way; %d tokens are computed again later", text.number, n)
        self._let_go(text)
        self._read.discard(text.number)
        self._running.remove(text)
        insort(self._waiting, text, key=_rank)

    def _let_go(self, text: Text) -> None:
        """Free the pages of a text, which stays."""
        if self.session.length(text.number):
            self.session.truncate(text.number, 0)

    def _drop_all(self) -> None:
        for text in self._running + self._waiting:
            self._speculation.forget(text.number)
            with suppress(Exception):  # closed, perhaps, or torn by an interrupt: the first error is the one to tell
                self.session.drop(text.number)
        self._running, self._waiting, self._pieces, self._read = [], [], [], Prefixes()


_rank = attrgetter("rank")
