"""The one thread that runs the model: requests come through an inbox, pieces leave through each one's own outlet."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from attrs import define, field, fields, frozen

from sis_core.errors import ClosedError, SisError
from sis_core.texts.feeding import SessionStats
from sis_core.texts.request import Piece, Request
from sis_core.texts.scheduler import Scheduler
from sis_server.errors import ApiError

log = logging.getLogger(__name__)
Outlet = Callable[[Piece], None]


class Word(Enum):
    """What an engine may be told beside requests."""

    STOP = "stop"


@frozen
class Cancel:
    """A ticket whose text nobody waits for any more."""

    ticket: int


@define
class Times:
    """When what happened to a text, by `time.perf_counter`; None until it does.

    Attributes:
        arrived: it was put in.
        admitted: there was room for it, and its prompt began to be read.
        first: its first token.
        ended: its last piece.
    """

    arrived: float | None = None
    admitted: float | None = None
    first: float | None = None
    ended: float | None = None


@define(eq=False)
class Caller:
    """Who puts texts in: one in the queue, however many they are, until the first of them is let in.

    Attributes:
        entered: has had its place in the queue.
    """

    entered: bool = False


@frozen
class Submission:
    ticket: int
    caller: Caller
    request: Request
    outlet: Outlet
    times: Times


@define
class Live:
    """A text on its way: its number in the scheduler, its tokens, and who hears of it."""

    ticket: int
    caller: Caller
    number: int
    prompt: int
    outlet: Outlet
    times: Times
    generated: int = 0


@define
class Counts:
    """What an engine did since it started; what was guessed, and was right, by drafters. Counters are replaced, not
    changed: another thread may read them."""

    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    rows_ahead: int = 0
    rows_wasted: int = 0
    guessed: Counter[str] = field(factory=Counter)
    guessed_right: Counter[str] = field(factory=Counter)

    def added(self, others: Counts) -> Counts:
        """The sums."""
        names = [field.name for field in fields(Counts)]
        return Counts(**{name: getattr(self, name) + getattr(others, name) for name in names})


class Engine:
    """Runs a scheduler on a thread of its own. `submit`, `cancel` and `close` may be called from any thread.

    Args:
        make: makes the scheduler; called on the engine's thread, which alone uses it.
        queue_limit: callers that may wait for room before others are refused.
    """

    def __init__(self, make: Callable[[], Scheduler], *, queue_limit: int) -> None:
        self._make, self._queue_limit = make, queue_limit
        self._inbox: queue.SimpleQueue[Submission | Cancel | Word] = queue.SimpleQueue()
        self._tickets = itertools.count()
        self._lock = threading.Lock()
        self._open: set[int] = set()  # tickets whose text has not ended
        self._queue: set[Caller] = set()  # of whom no text was let in
        self._live: dict[int, Live] = {}  # by number; the thread's own
        self._closing = False
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.counts = Counts()
        self._scheduler: Scheduler | None = None
        self._thread = threading.Thread(target=self._run, name="sis-engine", daemon=True)

    def start(self) -> None:
        """Start the thread; raises what making the scheduler raises."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    @property
    def n_open(self) -> int:
        """Texts that have not ended."""
        return len(self._open)

    @property
    def n_running(self) -> int:
        """Texts that were let in."""
        return 0 if self._scheduler is None else self._scheduler.n_running

    @property
    def n_ctx(self) -> int:
        """Tokens that one text may have."""
        assert self._scheduler is not None
        return self._scheduler.session.n_ctx

    def texts(self) -> list[dict[str, int]]:
        """What is on its way, in the order of arrival: each text's ticket, tokens of prompt, and tokens generated."""
        return [
            {"id": live.ticket, "n_prompt": live.prompt, "n_generated": live.generated}
            for live in list(self._live.values())
        ]

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def n_waiting(self) -> int:
        """Callers that wait, at most: either number may be a step late."""
        return min(len(self._queue), len(self._open) - self.n_running)

    def submit(self, request: Request, outlet: Outlet, times: Times | None = None, caller: Caller | None = None) -> int:
        """Put a request in; its pieces go to ``outlet``, on the engine's thread, which must not be kept.

        ``times`` are noted as it goes. All texts of one ``caller`` are taken where the first is; None is one of its
        own. The ticket is for `cancel`. ApiError 503 when too many wait, or when the engine is closing.
        """
        caller = caller or Caller()
        with self._lock:
            if self._closing or not self._thread.is_alive():
                raise ApiError(503, "the server is shutting down")
            if not caller.entered:
                if self.n_waiting >= self._queue_limit:
                    self.counts.refused += 1
                    raise ApiError(503, f"{self._queue_limit} requests are waiting already; try again later")
                caller.entered = True
                self._queue.add(caller)
            ticket = next(self._tickets)
            self._open.add(ticket)
            self.counts.requests += 1
        times = times or Times()
        times.arrived = time.perf_counter()
        self._inbox.put(Submission(ticket, caller, request, outlet, times))
        return ticket

    def cancel(self, ticket: int) -> None:
        """End a text that nobody waits for, if it has not ended; others that begin alike may still use it."""
        if ticket in self._open:
            self._inbox.put(Cancel(ticket))

    def close(self, deadline: float = 0.0) -> None:
        """Take no more requests, give the others ``deadline`` seconds to finish, then end them and the thread."""
        with self._lock:
            self._closing = True
        until = time.monotonic() + deadline
        while self._open and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        self._inbox.put(Word.STOP)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._scheduler = self._make()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        with self._scheduler:
            while self._listen(self._scheduler):
                self._step(self._scheduler)
            self._fail(ClosedError("the server is shutting down", where="request"))

    def _listen(self, scheduler: Scheduler) -> bool:
        """Take what is in the inbox, and wait for something where there is nothing else to do; False to stop."""
        wait = not scheduler.busy
        while True:
            try:
                item = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if isinstance(item, Word):
                return False
            if isinstance(item, Submission):
                self._add(scheduler, item)
            else:
                self._drop(scheduler, item.ticket)
            wait = not scheduler.busy and self._inbox.empty()

    def _add(self, scheduler: Scheduler, item: Submission) -> None:
        try:
            number = scheduler.add(item.request)
        except Exception as error:  # no memory
            number = -1 - item.ticket  # none of the scheduler's
            return self._tell(self._follow(item, number), Piece.of_error(_ours(error)))
        self._follow(item, number)
        return None

    def _follow(self, item: Submission, number: int) -> Live:
        live = Live(item.ticket, item.caller, number, len(item.request.prompt), item.outlet, item.times)
        self._live[number] = live
        return live

    def _drop(self, scheduler: Scheduler, ticket: int) -> None:
        found = next((live for live in self._live.values() if live.ticket == ticket), None)
        if found is not None:
            scheduler.cancel(found.number, keep=True)
            self._end(found)
            self.counts.cancelled += 1

    def _step(self, scheduler: Scheduler) -> None:
        began = time.perf_counter()
        try:
            pieces = scheduler.step()
        except Exception as error:
            log.exception("a step of the model failed")
            self._fail(_ours(error))
            return
        self.counts.steps += 1
        self.counts.step_seconds += time.perf_counter() - began
        if self.counts.rows_ahead != scheduler.session.stats.rows_ahead:
            self._count_guesses(scheduler.session.stats)
        for number in (*scheduler.running, *(piece.sequence for piece in pieces)):
            if (live := self._live.get(number)) is not None and live.times.admitted is None:
                live.times.admitted = began
                self._queue.discard(live.caller)
        for piece in pieces:
            live = self._live.get(piece.sequence)
            if live is not None:
                self._tell(live, piece)

    def _count_guesses(self, stats: SessionStats) -> None:
        counts = self.counts
        counts.rows_ahead, counts.rows_wasted = stats.rows_ahead, stats.rows_wasted
        counts.guessed = Counter({drafter: guessed.fed for drafter, guessed in stats.guessed.items()})
        counts.guessed_right = Counter({drafter: guessed.chosen for drafter, guessed in stats.guessed.items()})

    def _tell(self, live: Live, piece: Piece) -> None:
        if live.times.first is None:
            live.times.first = time.perf_counter()
        live.generated += piece.token is not None
        self.counts.generated_tokens += piece.token is not None
        if piece.finish_reason is not None:
            live.times.ended = time.perf_counter()
            self._end(live)
            self.counts.failed += piece.finish_reason == "error"
            self.counts.prompt_tokens += live.prompt
            self.counts.cached_tokens += piece.n_cached
        try:
            live.outlet(piece)
        except RuntimeError:  # its event loop is closed: nobody listens
            self._inbox.put(Cancel(live.ticket))

    def _end(self, live: Live) -> None:
        del self._live[live.number]
        self._open.discard(live.ticket)
        self._queue.discard(live.caller)

    def _fail(self, error: SisError) -> None:
        for live in list(self._live.values()):
            self._tell(live, Piece.of_error(error, live.number))


def _ours(error: Exception) -> SisError:
    """The error, told as one of ours."""
    if isinstance(error, SisError):
        return error
    ours = SisError(f"failed: {type(error).__name__}: {error}", where="model")
    ours.__cause__ = error
    return ours
