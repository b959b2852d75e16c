"""How the cache of a session comes to hold what the session knows: steps, and what is fed again.

The cache may hold less: after a backend that can only go back so far went back further, after a preemption, a loss, a
change of backend. It holds more after an interrupt between a step and its note. The next step of a sequence mends both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from attrs import define, evolve, field

from sis_core.arrays import F32
from sis_core.backend import Cache
from sis_core.backends.bind import usable
from sis_core.closing import Closing
from sis_core.errors import BackendError, ClosedError, ContextError, LostError, MemoryLimitError, SisError
from sis_core.loading.checks import token_ids
from sis_core.loading.model import Model
from sis_core.loading.options import Policy
from sis_core.step import Batch, Run
from sis_core.texts.common import n_common
from sis_core.texts.part import Asked, Part, Rows, gone_on
from sis_core.texts.retention import EvictionError, Retention

log = logging.getLogger(__name__)

MAX_FAILURES = 3
Lacking: TypeAlias = Mapping[int, Sequence[int]]  # ids of sequences
NONE_LACKING: Lacking = {}
NO_ADAPTERS: Mapping[int, str] = {}
ASKED = Asked()


@define
class Guessed:
    """Tokens that somebody guessed: how many were fed, and how many of these were chosen."""

    fed: int = 0
    chosen: int = 0


@define
class SessionStats:
    """What a session did. ``steps`` are those of the model, ``rows`` the tokens they held, ``rows_again`` those of
    them that the cache had held before, ``rows_ahead`` those that were fed before they were chosen, ``rows_wasted``
    those of these that were not chosen, ``guessed`` the same by drafters (what a sampler forces is no guess)."""

    steps: int = 0
    rows: int = 0
    rows_again: int = 0
    rows_ahead: int = 0
    rows_wasted: int = 0
    guessed: dict[str, Guessed] = field(factory=dict)
    degraded: int = 0
    failures_in_row: int = field(default=0)


class Feeding(Closing):
    """Sequences of known tokens over a cache of ``max_tokens``; `Session` is what others see of it."""

    def __init__(self, model: Model, max_tokens: int, on_error: Policy) -> None:
        self.model, self.max_tokens, self.on_error = model, max_tokens, on_error
        self.stats = SessionStats(degraded=model.degraded)
        self._tokens: dict[int, list[int]] = {}
        self._adapters: dict[int, str] = {}
        self._retentions: dict[int, Retention] = {}
        self._borrowed: Model | None = None  # a model that was made by switching backends
        self._closed = False
        self._cache = model.new_cache(max_tokens)

    @property
    def step_rows(self) -> int:
        """Rows of a step at most: 512 unless the family asks for more."""
        return self.model.network.step_rows

    def run(self, parts: Sequence[Part], asked: Asked = ASKED) -> dict[int, Rows]:
        """One backend step that appends parts to sequences, one for each: the results of each, by its sequence.

        For those who keep count: nothing is checked but what arithmetic relies on; `Session.advance` checks the rest.
        What the cache lacks of these sequences is fed with them, or in steps before where it is much. Where the
        backend went on by itself, there is a result more for each token that was appended beside the part's. After an
        exception every sequence is as it was.
        """
        if self._closed:
            self._check_open()
        values = self._step(parts, asked)
        for sequence, ids, _ in parts:
            if asked.multi_step:
                ids = ids + gone_on(values)
            if (known := self._tokens.get(sequence)) is None:
                self._tokens[sequence] = list(ids)
            else:
                known += ids
            if sequence in self._retentions:
                self._tell_of_places(sequence, len(ids))
        if len(parts) == 1:
            return {parts[0].sequence: values}
        results, at = dict[int, Rows](), 0
        for sequence, _, n in parts:
            results[sequence] = values[at : at + n]
            at += n
        return results

    def use_backend(self, name: str) -> None:
        """Go on with another backend: same texts, computed again from their tokens. One line in the log.

        When that fails or is interrupted the session is as it was.
        """
        self._check_open()
        other = self.model.with_backend(name)
        try:
            cache = other.new_cache(self.max_tokens)
            log.warning(
                "backend changed from %s to %s; %d tokens are computed again",
                self.model.backend,
                name,
                self._n_tokens(),
            )
            self._fill(other, cache)
        except BaseException:
            other.close()
            raise
        if self._borrowed is not None:
            self._borrowed.close()
        self._borrowed = self.model = other
        self._cache = cache

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("is closed", where="session", fix="make a new one from the model")

    def _n_tokens(self) -> int:
        return sum(map(len, self._tokens.values()))

    def _fill(self, model: Model, cache: Cache) -> None:
        """Bring an empty cache to what this session knows; beginnings that sequences share are shared again."""
        done: list[int] = []
        for sequence, ids in self._tokens.items():
            made = self._made_by(sequence)
            alike = [other for other in done if self._made_by(other) == made]
            shared = {other: n_common(self._tokens[other], ids) for other in alike}
            source = max(shared, key=lambda other: shared[other], default=None)
            start = 0 if source is None else shared[source]
            if source is not None and start:
                start = cache.reach(source, start)
                cache.fork(source, sequence, start)
            self._feed_again(model, cache, sequence, start)
            done.append(sequence)

    def _made_by(self, sequence: int) -> tuple[str | None, Retention | None]:
        """What the state of a sequence depends on beside its tokens."""
        return self._adapters.get(sequence), self._retentions.get(sequence)

    def valid(self, tokens: Iterable[int]) -> list[int]:
        """The ids as a list; one outside the vocabulary is a BackendError, or clamped under ``degrade``.

        TokenizerError for what are no ids.
        """
        ids = token_ids(tokens, "tokens")
        n_vocab = self.model.config.n_vocab
        if not ids or (min(ids) >= 0 and max(ids) < n_vocab):
            return ids
        for i, token in enumerate(ids):
            if not 0 <= token < n_vocab:
                if self.on_error != "degrade":
                    raise BackendError(f"token {token} is outside the vocabulary of {n_vocab}", where="step")
                log.warning("token %d is outside the vocabulary of %d; clamped", token, n_vocab)
                self.stats.degraded += 1
                ids[i] = min(max(token, 0), n_vocab - 1)
        return ids

    def _step(self, parts: Sequence[Part], asked: Asked) -> Rows:
        """The results of all parts, one after another; the tokens are not noted yet."""
        while True:
            try:
                lacking = self._lacking(parts)
                alone = bool(lacking) if asked.alone is None else asked.alone
                if lacking:
                    lacking = self._feed_much(lacking)
                for sequence, _, _ in parts:
                    if sequence in self._retentions:
                        self._evict(self.model, self._cache, sequence, len(self._tokens.get(sequence, ())))
                batch = self._batch(parts, asked, alone, lacking)
                output = self.model.step(batch, self._cache)
            except (KeyboardInterrupt, MemoryError, MemoryLimitError, ContextError, ClosedError, EvictionError):
                raise
            except LostError as error:
                self._begin_again(error)
                continue
            except (Exception, SystemExit) as error:
                self._recover(error)
                continue
            stats = self.stats
            stats.failures_in_row = 0
            n_more = len(output.best) - 1 if batch.multi_step and output.best else 0
            stats.steps += 1 + n_more
            stats.rows += batch.n + n_more
            if lacking:
                stats.rows_again += sum(map(len, lacking.values()))
            return output.best or output.values

    def _batch(self, parts: Sequence[Part], asked: Asked, alone: bool, lacking: Lacking) -> Batch:
        ids: list[int] = []
        runs: list[Run] = []
        rows: list[int] = []
        for sequence, part, outputs in parts:
            start, first = len(self._tokens.get(sequence, ())), len(ids)
            if lacking and (again := lacking.get(sequence)):
                start -= len(again)
                ids += again
            ids += part
            runs.append(Run(sequence, start, len(ids) - first))
            rows += range(len(ids) - outputs, len(ids))
        adapters = NO_ADAPTERS
        if self._adapters:
            adapters = {sequence: self._adapters[sequence] for sequence, _, _ in parts if sequence in self._adapters}
        want, _, greedy, multi_step = asked
        if len(ids) > 1:
            multi_step = None  # what is fed again comes first
        return Batch(ids, tuple(runs), rows, want, adapters=adapters, alone=alone, greedy=greedy, multi_step=multi_step)

    def _lacking(self, parts: Sequence[Part]) -> Lacking:
        """What the cache lacks of what the sequences of a step are known to hold.

        A cache that holds more, since an interrupt kept a step from being noted, goes back.
        """
        lacking: dict[int, Sequence[int]] = {}
        for sequence, _, _ in parts:
            known = self._tokens.get(sequence, ())
            if (kept := self._cache.length(sequence)) == len(known):
                continue
            if kept > len(known):
                kept = go_back(self._cache, sequence, len(known))
            if kept < len(known):
                lacking[sequence] = known[kept:]
        return lacking

    def _feed_much(self, lacking: Lacking) -> Lacking:
        """Feed again what would not fit into the next step beside its parts; what is left for it."""
        if sum(map(len, lacking.values())) <= self.step_rows and not self._retentions.keys() & lacking:
            return lacking
        for sequence, ids in lacking.items():
            self._feed_again(self.model, self._cache, sequence, len(self._tokens[sequence]) - len(ids))
        return NONE_LACKING

    def _tell_of_places(self, sequence: int, n: int) -> None:
        """A warning where the last ``n`` tokens of a sequence are the first past the places that a model has seen."""
        length, trained = len(self._tokens[sequence]), self.model.config.n_ctx_train
        if length - n <= trained < length:
            log.warning(
                "sequence %d goes past the %d places that the model was trained for: "
                "the first tokens that it still sees now lie further back than it has learned",
                sequence,
                trained,
            )

    def _feed_again(self, model: Model, cache: Cache, sequence: int, start: int) -> None:
        """Bring a sequence of which a cache holds ``start`` tokens to what this session knows."""
        self._feed_between(model, cache, sequence, start, len(self._tokens[sequence]))

    def _feed_between(
        self, model: Model, cache: Cache, sequence: int, start: int, stop: int, *, watch: bool = False
    ) -> tuple[F32, ...]:
        """Feed the tokens at places from ``start`` to ``stop``; with ``watch``, in one step, where attention goes."""
        ids, adapter, retention = self._tokens[sequence], self._adapters.get(sequence), self._retentions.get(sequence)
        attention: tuple[F32, ...] = ()
        while start < stop:
            n = min(stop - start, self.step_rows)
            if retention and not watch:
                self._evict(model, cache, sequence, start)
                n = min(n, retention.until(start))
            batch = Batch.of(ids[start : start + n], position=start, sequence=sequence, outputs=[])
            adapters = {} if adapter is None else {sequence: adapter}
            attention = model.step(evolve(batch, adapters=adapters, watch=watch), cache).attention
            start += n
            self.stats.steps += 1
            self.stats.rows += n
            self.stats.rows_again += n
        return attention

    def _evict(self, model: Model, cache: Cache, sequence: int, length: int) -> None:
        """Give back what tokens after the first ``length`` of a sequence, all that the cache holds, do not see."""

        def look(n: int) -> tuple[F32, ...]:
            kept = go_back(cache, sequence, length - n)
            self._feed_between(model, cache, sequence, kept, length - n)
            attention = self._feed_between(model, cache, sequence, length - n, length, watch=True)
            if not attention:
                raise BackendError(
                    f"the backend {model.backend} cannot tell where attention goes, which an eviction asks for",
                    where="context",
                    fix="choose --backend numpy, or --context sinks:4",
                )
            return attention

        self._retentions[sequence].evict(cache, sequence, length, look)

    def _begin_again(self, error: LostError) -> None:
        """What held the cache was lost and is back without it: the next try feeds again what is known; or raise."""
        self.stats.failures_in_row += 1
        if self.stats.failures_in_row >= MAX_FAILURES:
            self.stats.failures_in_row = 0
            raise error
        log.warning("%s; %d tokens are computed again", error, self._n_tokens())

    def _recover(self, error: BaseException) -> None:
        """Under ``degrade``: move to the next real backend, or repeat; else raise the error again, as a SisError."""
        self.stats.failures_in_row += 1
        if self.on_error != "degrade" or self.stats.failures_in_row >= MAX_FAILURES:
            self.stats.failures_in_row = 0
            if isinstance(error, SisError):
                raise error
            name = self.model.backend
            raise BackendError(f"a step failed: {type(error).__name__}: {error}", where=f"backend {name}") from error
        self.stats.degraded += 1
        for following in self._later_backends():
            log.warning("a step failed on %s: %s; going on with %s", self.model.backend, error, following)
            try:
                return self.use_backend(following)
            except Exception as reason:
                log.warning("%s cannot take over: %s", following, reason)
        log.warning("a step failed on %s: %s; trying again", self.model.backend, error)
        return None

    def _later_backends(self) -> list[str]:
        names = [backend.name for backend in usable(self.model.registry.records("backends"))]
        return names[names.index(self.model.backend) + 1 :] if self.model.backend in names else names


def go_back(cache: Cache, sequence: int, n: int) -> int:
    """Cut a sequence down to its longest beginning, of at most ``n`` tokens, that can be reached; return its length."""
    kept = cache.reach(sequence, n)
    cache.truncate(sequence, kept)
    return kept
