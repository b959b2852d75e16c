"""Shards of a file over several machines: each asks for the next when it has answered one.

A machine that is lost gives its shard back. One that is lost twice is cut in halves, until it is known which request it
was; that is reported as an error, and the others are answered.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import frozen

from sis_core.cluster import Remote
from sis_core.errors import LostError, SisError
from sis_core.loading.alike import check_alike
from sis_server.alike import BACK
from sis_server.batch.answers import refused
from sis_server.batch.lines import Line
from sis_server.errors import ApiError

AHEAD = 4  # shards for each machine that may be answered before the one whose turn it is
LOSSES = 3  # of machines over one request until it is to blame
LISTEN = 0.2  # seconds between two looks whether the user has interrupted


@frozen
class Shard:
    """Requests that follow one another.

    Attributes:
        first: place of the first within the run.
        losses: machines that were lost over it.
    """

    first: int
    lines: tuple[Line, ...]
    losses: int = 0

    def lost(self) -> list[Shard]:
        """What is tried after another loss; nothing when it is known whose fault it is."""
        losses, n = self.losses + 1, len(self.lines)
        if losses < 2 or (n == 1 and losses < LOSSES):
            return [Shard(self.first, self.lines, losses)]
        if n == 1:
            return []
        half = n // 2
        return [Shard(self.first, self.lines[:half], losses), Shard(self.first + half, self.lines[half:], losses)]


class Shards:
    """Hands out shards, takes answers, and gives them out in order. Its methods may be called from any thread.

    Args:
        size: requests in a shard.
        ahead: requests that may be under way beyond the first that is not answered.
    """

    def __init__(self, lines: Iterator[Line], *, size: int, ahead: int) -> None:
        self._lines, self._size, self._ahead = lines, size, ahead
        self._change = threading.Condition()
        self._again: deque[Shard] = deque()
        self._answers: dict[int, bytes] = {}  # by place, of those whose turn has not come
        self._n_taken = self._n_given = 0  # requests: read, and whose answers were given out
        self._ended = False  # no line is left
        self._closed = False

    def take(self) -> Shard | None:
        """The next, as soon as there is one; None when all is answered."""
        with self._change:
            while not self._closed:
                if self._again:
                    return self._again.popleft()
                if not self._ended and self._n_taken < self._n_given + self._ahead:
                    if (shard := self._read()) is not None:
                        return shard
                elif self._ended and self._n_given == self._n_taken:
                    return None
                else:
                    self._change.wait()
            return None

    def _read(self) -> Shard | None:
        """From the file; what cannot be run is answered at once."""
        lines: list[Line] = []
        first = self._n_taken
        while len(lines) < self._size:
            line = next(self._lines, None)
            if line is None:
                self._ended = True
                break
            if line.error is not None:
                self._answers[self._n_taken] = refused(line, line.error)
                self._n_taken += 1
                break
            lines.append(line)
            self._n_taken += 1
        self._change.notify_all()
        return Shard(first, tuple(lines)) if lines else None

    def answered(self, shard: Shard, answers: Sequence[bytes]) -> None:
        """Its answers, one for each request."""
        with self._change:
            self._answers.update(enumerate(answers, shard.first))
            self._change.notify_all()

    def lost(self, shard: Shard, error: LostError) -> None:
        """Whoever had it was lost."""
        with self._change:
            self._again.extendleft(reversed(again := shard.lost()))
            if not again:
                line = shard.lines[0]
                blamed = ApiError(500, f"{LOSSES} machines ended over this request; the last: {error}")
                self._answers[shard.first] = refused(line, blamed)
            self._change.notify_all()

    def next(self, seconds: float) -> bytes | None:
        """The answer whose turn it is, or None when it has not come within ``seconds``."""
        with self._change:
            if self._n_given not in self._answers:
                self._change.wait(seconds)
            answer = self._answers.pop(self._n_given, None)
            if answer is not None:
                self._n_given += 1
                self._change.notify_all()
            return answer

    @property
    def done(self) -> bool:
        """Whether all answers were given out."""
        with self._change:
            return self._ended and self._n_given == self._n_taken

    def close(self) -> None:
        """Hand out no more."""
        with self._change:
            self._closed = True
            self._change.notify_all()


def run_shards(
    workers: Sequence[Remote], known: Mapping[str, str], lines: Iterator[Line], *, size: int,
    told: Callable[[bytes], None],
) -> None:  # fmt: skip
    """Have each line answered by one of the workers; ``told`` hears of each answer in its turn, on this thread.

    Args:
        known: the identity that all workers have; one that comes back as another is an error.
        size: requests of a shard.

    Raises:
        LostError: no worker is left. What was told stays told.
    """
    shards = Shards(lines, size=size, ahead=AHEAD * size * len(workers))
    ends: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def serve(worker: Remote) -> None:
        try:
            while (shard := shards.take()) is not None:
                try:
                    shards.answered(shard, worker.call("answer", shard.lines).result())
                except LostError as error:
                    shards.lost(shard, error)
                    worker.wait(BACK)
                    check_alike({"this job": known, worker.where: worker.call("identity").result()})
        except BaseException as error:
            ends.put(error)

    for worker in workers:
        threading.Thread(target=serve, args=(worker,), name=f"sis-shards {worker.where}", daemon=True).start()
    n_left = len(workers)
    try:
        while not shards.done:
            if (answer := shards.next(LISTEN)) is not None:
                told(answer)
            while not ends.empty():
                error = ends.get()
                n_left -= 1
                if not isinstance(error, LostError) or not n_left:
                    raise _last(error)
    finally:
        shards.close()


def _last(error: BaseException) -> BaseException:
    """The error, with what to do now."""
    if isinstance(error, SisError) and not error.fix:
        return type(error)(error.what, where=error.where, fix="the same command goes on from here")
    return error
