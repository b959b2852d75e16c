"""Steps through stages, and what is done when one of them is lost."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
from attrs import evolve

from sis_core.backend import Cache
from sis_core.block import Network
from sis_core.cache.kv_types import value_bytes
from sis_core.cache.paged import Layout
from sis_core.cache.pages import PAGE_SIZE
from sis_core.cache.tables import text_nbytes
from sis_core.cluster import Pending, Remote
from sis_core.errors import BackendError, ContextError, LostError, MemoryLimitError
from sis_core.loading.alike import check_alike
from sis_core.stages.cache import StagedCache
from sis_core.stages.stage import About, Order
from sis_core.step import Batch, Output, Run

log = logging.getLogger(__name__)

ROWS = 128  # of a part: while one stage computes it, the stage before computes the next
BACK = 600.0  # seconds that a stage may take to come back, with its weights read


class StagedForward:
    """Layers in several stages. Hidden states go from one to the next without coming by here.

    A step of many rows is cut into parts, so that all stages compute at once; so do sessions on several threads.

    Raises of `step`: LostError when a stage was lost. It is there again then, and the cache, which was emptied, may be
    filled again from the ids of its texts.
    """

    def __init__(self, network: Network, stages: Sequence[Remote], ranges: Sequence[range]) -> None:
        """Waits until all stages are there; BackendError when they do not do the same."""
        self._network, self._stages, self._ranges = network, stages, ranges
        self.layers = range(network.n_layer)
        self._layout = Layout(network.blocks, self.layers)
        self._left: deque[str] = deque()  # keys of caches that are gone, which stages may still hold
        abouts = self._abouts()
        self.identity = abouts[0].identity
        self.batch_invariant = all(about.batch_invariant for about in abouts)
        self.grains = tuple(
            f"{grain} on {stage.where}" for about, stage in zip(abouts, stages, strict=True) for grain in about.grains
        )

    def _abouts(self) -> list[About]:
        for stage in self._stages:
            stage.wait(BACK)
        abouts: list[About] = [stage.call("about").result() for stage in self._stages]
        names = [f"stage {i} on {stage.where}" for i, stage in enumerate(self._stages)]
        check_alike({name: about.identity for name, about in zip(names, abouts, strict=True)})
        return abouts

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        """Of the stage that takes most."""
        states, size = self._layout.states, value_bytes(kv_type)
        return max(
            int(sum(text_nbytes(state, size, max_tokens) for i in part if (state := states[i])))
            for part in self._ranges
        )

    def new_cache(self, kv_type: str, max_tokens: int) -> StagedCache:
        """MemoryLimitError that names the stage which has no room for it."""
        self._drop_left()
        answers = [(stage, stage.call("check_room", max_tokens)) for stage in self._stages]
        for stage, answer in answers:
            try:
                answer.result()
            except LostError:
                log.info("stage on %s is lost; the first step waits for it", stage.where)
            except MemoryLimitError as error:
                raise MemoryLimitError(error.what, where=f"{stage.where}: {error.where}", fix=error.fix) from None
        cache = StagedCache(self._layout, kv_type, max_tokens, self)
        weakref.finalize(cache, self._left.extend, cache.keys)  # no call: the collector may come in one
        return cache

    def step(self, batch: Batch, cache: Cache) -> Output:
        if not isinstance(cache, StagedCache):
            raise BackendError("this cache was made by another backend", where="step")
        self._drop_left()
        answers: list[Pending] = []
        if batch.greedy:
            batch = evolve(batch, greedy=False)  # what comes back is arrays
        try:
            for part in _parts(batch, self._network, cache.n_free):
                with cache.reserve(part):  # what has no room is refused here, before anybody is told
                    answers.append(self._send(cache.order(), part))
            values = [answer.result() for answer in answers]
        except (LostError, ContextError, MemoryLimitError) as error:  # the last two of a stage: its tables differ
            if not answers and not isinstance(error, LostError):
                raise
            raise self._lost(error, cache) from error
        except BaseException:
            self._forget(cache)  # nobody knows how far each stage came
            raise
        return Output(values[0] if len(values) == 1 else np.concatenate(values))

    def save(self, order: Order, sequence: int) -> list[list[bytes]]:
        """What each stage holds of a sequence."""
        answers = [stage.call("save", order, sequence) for stage in self._stages]
        return [answer.result() for answer in answers]

    def load(self, order: Order, sequence: int, data: list[list[bytes]]) -> None:
        """Give each stage what it has saved."""
        if len(data) != len(self._stages):
            raise BackendError("these bytes were saved by another number of stages", where="cache")
        pairs = zip(self._stages, data, strict=True)
        for answer in [stage.call("load", order, sequence, part) for stage, part in pairs]:
            answer.result()

    def _send(self, order: Order, batch: Batch) -> Pending:
        answer: Pending | None = None
        for stage in self._stages:
            answer = stage.call("step", order, batch, answer)
        assert answer is not None
        return answer

    def _lost(self, error: Exception, cache: StagedCache) -> LostError:
        """Wait for all stages and empty the cache; the error to raise then, which says that this is done."""
        log.warning("%s; waiting for it", error)
        self._forget(cache)
        abouts = self._abouts()
        check_alike({"before": self.identity, "now": abouts[0].identity})
        return error if isinstance(error, LostError) else LostError(f"a stage lost its texts: {error}", where="stages")

    def _forget(self, cache: StagedCache) -> None:
        self._left.extend(cache.keys)
        cache.keys.clear()
        cache.forget()
        self._drop_left()

    def _drop_left(self) -> None:
        """Let stages forget caches that are gone; those that are gone themselves have."""
        while self._left:
            with suppress(IndexError):  # another thread may have taken the last
                key = self._left.popleft()
                for stage in self._stages:
                    with suppress(Exception):
                        stage.call("drop", key)


def _parts(batch: Batch, network: Network, n_free: int) -> Iterator[Batch]:
    """The batch in parts of `ROWS` rows, whole where it is small or might not fit: parts cannot be taken back."""
    if batch.n <= ROWS or not network.causal or n_free < batch.n + PAGE_SIZE * len(batch.runs) or batch.tokens is None:
        yield batch
        return
    outputs = batch.outputs
    if len(outputs) > 1 and (np.diff(outputs) <= 0).any():  # results come in the order of the parts
        yield batch
        return
    runs: list[Run] = []
    start, first = 0, 0  # rows: of the part, and of the run
    for run in batch.runs:
        done = 0
        while done < run.n:
            n = min(run.n - done, start + ROWS - first - done)
            runs.append(Run(run.sequence, run.start + done, n))
            done += n
            if (end := first + done) == start + ROWS or end == batch.n:
                rows = outputs[(outputs >= start) & (outputs < end)] - start
                yield evolve(batch, tokens=batch.tokens[start:end], runs=tuple(runs), outputs=rows)
                runs, start = [], end
        first += run.n
