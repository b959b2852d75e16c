"""A text on its way: its tokens, and what is made of the rows that the model answers with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from sis_core.arrays import F32, F64
from sis_core.cache.pages import PAGE_SIZE, pages_for
from sis_core.errors import FOREIGN, SamplerError, SisError
from sis_core.sampler import log_softmax
from sis_core.step import Best
from sis_core.texts.ahead import NOTHING, Ahead
from sis_core.texts.common import n_common
from sis_core.texts.finite import finite
from sis_core.texts.part import Part, Rows, Want
from sis_core.texts.prefixes import Scope
from sis_core.texts.request import FinishReason, Piece, PromptLogprob, Request, TokenLogprob
from sis_core.texts.retention import Retention
from sis_core.texts.writer import Writer

log = logging.getLogger(__name__)


class Text:
    """A request and how far it has come. Which of its tokens are in the cache is the session's to know.

    Attributes:
        number: its sequence in the session, and its place in the order of arrival.
        want: what a step must return for it.
        forces: whether a sampler may know what must come next.
        greedy: whether no more of a row is looked at than which token is best.
        ids: its tokens: the prompt, and what was chosen since; the last one chosen is still to be fed.
        n_prompt: tokens of the prompt.
        n_known: tokens that it shares since it was let in the last time.
        n_cached: the same for the first time; None before that.
        n_written: tokens that were chosen.
        retention: what it keeps of its past in the cache; None for all.
        reading: whether results are still wanted for tokens of the prompt, so that all of them must be fed.
        degraded: whether anything was guessed or repeated on the way.
    """

    def __init__(
        self,
        number: int,
        request: Request,
        ids: list[int],
        writer: Writer | None,
        n_ctx: int,
        *,
        retention: Retention | None = None,
        degraded: bool,
    ) -> None:
        self.number, self.request, self.ids = number, request, ids
        self.want: Want = "hidden" if request.want == "hidden" else "logits"
        self.forces = writer is not None and writer.forces
        self.greedy = writer is not None and writer.greedy
        self.retention, self.degraded = retention, degraded
        self.n_prompt, self.n_known = len(ids), 0
        self.n_cached: int | None = None
        self._writer, self._n_ctx = writer, n_ctx
        self.reading = request.reads_prompt
        self.n_written = 0
        self._n_read = 0  # tokens of the prompt whose rows have been taken
        self._rows: list[F32] = []
        self._prompt_logprobs: list[PromptLogprob] = []

    @property
    def rank(self) -> tuple[int, int]:
        """Who comes first: the one with more priority, then the older."""
        return -self.request.priority, self.number

    @property
    def scope(self) -> Scope:
        return Scope(self.request.salt, self.request.adapter)

    @property
    def writes(self) -> bool:
        """Whether it goes on after its prompt."""
        return self._writer is not None

    def n_soon(self, ahead: int) -> int:
        """Tokens that it will have fed after all it has, and at most ``ahead`` of those that it may still get."""
        if self._writer is None:
            return len(self.ids)
        if self.request.max_tokens is not None:
            ahead = min(ahead, self.request.max_tokens - self.n_written - 1)
        return min(len(self.ids) + ahead, self._n_ctx)

    def pages_to_come(self, n: int, n_evicted: int) -> int:
        """Pages that it will take beside those of its first ``n`` tokens, which have been fed, as many as ``n_evicted``
        have been given back: for the tokens that it has, and a page more if it may grow by that."""
        own = pages_for(n) if n > self.n_known else n // PAGE_SIZE  # one that is shared in part will be copied
        more = pages_for(self.n_soon(PAGE_SIZE)) - own
        if self.retention is None or (most := self.retention.most_pages) is None:
            return more
        return min(more, max(0, most - own + n_evicted // PAGE_SIZE))

    def part(self, start: int, n: int, ahead: Ahead) -> Part:
        """Of a step: ``n`` of its tokens from place ``start`` on, then those ``ahead``, and what is wanted of them."""
        ids = self.ids[start : start + n]
        if ahead.tokens:
            ids += ahead.tokens
        if self.reading:
            return Part(self.number, ids, n)
        return Part(self.number, ids, 1 + len(ahead.tokens) - ahead.n_blind if start + n == len(self.ids) else 0)

    @property
    def n_ahead(self) -> int:
        """Tokens that may be fed ahead, once it has been read: those after them would pass a limit."""
        if not self.n_written:
            return 0
        room = self._n_ctx - len(self.ids)
        return room if self.request.max_tokens is None else min(room, self.request.max_tokens - self.n_written - 1)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that would be its last."""
        return self._writer.ends if self._writer else frozenset()

    def forced(self) -> Ahead:
        """What must come next, whatever the model thinks. A sampler that fails here does so when it is to choose."""
        if self._writer is None:
            return NOTHING
        try:
            return self._writer.forced()
        except MemoryError:
            raise
        except FOREIGN as error:
            log.debug("sequence %d: what is forced is not known: %s", self.number, error)
            return NOTHING

    def take(self, rows: Rows, end: int, ahead: Ahead, pieces: list[Piece]) -> None:
        """Make use of the results of a step that fed the tokens up to place ``end``, and then those
        ``ahead``; they are the last rows.

        It adds the ``pieces`` that they complete: none when there is more to feed first, and one more than those of the
        tokens ahead that were chosen. Raises what samplers raise.
        """
        if self.reading:
            assert isinstance(rows, np.ndarray)
            self._read(rows[max(self._n_read - end + len(rows), 0) :])
        if end < len(self.ids):
            return
        if self._writer is None:
            pieces.append(self._piece(finish_reason="length", rows=finite(np.concatenate(self._rows), "a number")))
            return
        first = len(rows) - len(ahead.tokens) - 1  # its row, were none blind
        for i, token in enumerate(ahead.tokens):
            piece = self._write(self._writer, rows[first + i] if i >= ahead.n_blind else None)
            if i < ahead.n_blind and piece.token != token:
                raise SamplerError(
                    f"token {token} was forced, and token {piece.token} was chosen",
                    where="sampling",
                    fix="leave out the sampler that promises tokens it does not force",
                )
            pieces.append(piece)
            if piece.finish_reason or piece.token != token:
                return
        pieces.append(self._write(self._writer, rows[-1]))

    def _write(self, writer: Writer, row: F32 | Best | None) -> Piece:
        full = len(self.ids) >= self._n_ctx and (self.request.context != "shift" or self._n_ctx == 1)
        token, text, reason, stop = writer.write(row, full=full)
        self.ids.append(token)
        self.n_written += 1
        piece = self._piece(text, token=token, finish_reason=reason, stop=stop)
        if self.request.logprobs is not None and isinstance(row, np.ndarray):
            values = log_softmax(row)
            piece.logprob, piece.top = float(values[token]), likeliest(values, self.request.logprobs)
        return piece

    def fail(self, error: SisError) -> Piece:
        """The piece that ends it."""
        return self._piece(finish_reason="error", error=error)

    @property
    def overflows(self) -> bool:
        """Whether the last token, still to be fed, has no place in the context."""
        return len(self.ids) > self._n_ctx

    def shift(self) -> int:
        """Let the oldest tokens of a full context fall out; how many at the beginning stay where they were."""
        old, self.ids = self.ids, [*shifted(self.ids[:-1], self._n_ctx, self.request.n_keep), self.ids[-1]]
        return min(n_common(old, self.ids), len(self.ids) - 1)

    def _read(self, rows: F32) -> None:
        """What is wanted of the prompt itself, from its first row that was not taken yet."""
        if self.request.want != "text":
            self._rows.append(rows)
        if (n := self.request.prompt_logprobs) is not None:
            following = self.ids[self._n_read + 1 : self._n_read + 1 + len(rows)]
            for row, token in zip(rows, following, strict=False):  # what follows the last row is still to be chosen
                values = log_softmax(row)
                self._prompt_logprobs.append(PromptLogprob(token, float(values[token]), likeliest(values, n)))
        self._n_read += len(rows)
        self.reading = self._n_read < self.n_prompt

    def _piece(
        self,
        text: str = "",
        *,
        token: int | None = None,
        finish_reason: FinishReason | None = None,
        stop: str | None = None,
        rows: F32 | None = None,
        error: SisError | None = None,
    ) -> Piece:
        piece = Piece(text)
        piece.token, piece.sequence = token, self.number
        piece.finish_reason, piece.stop = finish_reason, stop
        piece.n_cached, piece.degraded = self.n_cached or 0, self.degraded
        if rows is not None or error is not None:
            piece.rows, piece.error = rows, error
        if self._prompt_logprobs:
            piece.prompt_logprobs, self._prompt_logprobs = tuple(self._prompt_logprobs), []
        return piece


def likeliest(logprobs: F64, n: int) -> tuple[TokenLogprob, ...]:
    """The ``n`` most likely tokens, the likeliest first; of equals the smaller id."""
    near = np.argpartition(-logprobs, n)[:n] if n < len(logprobs) else np.arange(len(logprobs))
    best = sorted(near.tolist(), key=lambda i: (-logprobs[i], i))
    return tuple(TokenLogprob(i, float(logprobs[i])) for i in best)


def shifted(tokens: Sequence[int], n_ctx: int, n_keep: int) -> list[int]:
    """The first ``n_keep`` tokens and the newest that fill the context to a half.

    They are computed again at their new places, which is right for every family, unlike rotating old keys.
    """
    n_keep = min(n_keep, n_ctx // 4)
    n_tail = max(1, n_ctx // 2 - n_keep)
    return [*tokens[:n_keep], *tokens[len(tokens) - n_tail :]]


def ours(error: Exception, number: int) -> SisError:
    """The error, told as one of ours."""
    if isinstance(error, SisError):
        return error
    ours = SisError(f"failed: {type(error).__name__}: {error}", where=f"sequence {number}")
    ours.__cause__ = error
    return ours
