"""A session: sequences of tokens over one cache. Cheap to make, used from one thread at a time.

The session keeps each sequence's token ids, so it can always build its cache again: on another backend, or after the
text was shifted. What is in the cache is always a prefix of what the session knows.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

import numpy as np
from attrs import define, evolve, field

from sis_core.arrays import F32
from sis_core.backend import Cache
from sis_core.backends.bind import usable
from sis_core.errors import BackendError, ClosedError, ContextError, MemoryLimitError, SisError
from sis_core.loading.model import Model
from sis_core.step import Batch, Output, Run

log = logging.getLogger(__name__)

CHUNK = 512  # rows of a prefill step: what one Ctrl-C waits for
MAX_FAILURES = 3
Policy = Literal["strict", "degrade"]
Outputs = Literal["none", "last", "all"]
Want = Literal["logits", "hidden"]


@define
class SessionStats:
    """What a session did. ``steps`` are calls of the backend, ``rows`` the tokens they held."""

    steps: int = 0
    rows: int = 0
    degraded: int = 0
    failures_in_row: int = field(default=0)


class Session:
    """Sequences over one cache of ``max_tokens`` tokens.

    Args:
        model: the model; it must stay open.
        n_ctx: tokens that one sequence may hold; by default the model's.
        max_tokens: tokens that the cache holds over all sequences; by default, and at least, ``n_ctx``.
        on_error: ``degrade`` falls back to the next backend after a failed step, clamps token ids, and counts it.
    """

    def __init__(
        self, model: Model, *, n_ctx: int | None = None, max_tokens: int | None = None, on_error: Policy = "strict"
    ) -> None:
        self.model = model
        self.n_ctx = model.config.n_ctx if n_ctx is None else n_ctx
        if not 1 <= self.n_ctx <= model.config.n_ctx:
            most = model.config.n_ctx
            raise ContextError(
                f"a context of {self.n_ctx} tokens is not within 1 to the {most} the model was loaded for",
                where="session",
                fix="load the model with a longer context (n_ctx, --ctx)",
            )
        self.max_tokens = max(self.n_ctx if max_tokens is None else max_tokens, self.n_ctx)
        self.on_error = on_error
        self.stats = SessionStats(degraded=model.degraded)
        self._tokens: dict[int, list[int]] = {}
        self._adapters: dict[int, str] = {}
        self._borrowed: Model | None = None  # a model that this session made by switching backends
        self._closed = False
        self._cache = model.new_cache(self.max_tokens)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def degraded(self) -> bool:
        """Whether anything was guessed, replaced or repeated."""
        return self.stats.degraded > 0

    @property
    def nbytes(self) -> int:
        """Bytes of cache in use."""
        self._check_open()
        return self._cache.nbytes

    @property
    def n_free(self) -> int:
        """Tokens that the cache still has room for, in whole pages."""
        self._check_open()
        return self._cache.n_free

    def tokens(self, sequence: int = 0) -> list[int]:
        """A copy of the sequence's token ids."""
        return list(self._tokens.get(sequence, ()))

    def length(self, sequence: int = 0) -> int:
        """How many tokens the sequence holds."""
        return len(self._tokens.get(sequence, ()))

    def feed(self, tokens: Iterable[int], sequence: int = 0, *, every: bool = False) -> F32:
        """Append tokens to one sequence; logits float32 ``(1, n_vocab)`` of the last, ``(k, n_vocab)`` of every one."""
        return self.step({sequence: list(tokens)}, every=every)[sequence]

    def step(self, tokens: Mapping[int, Sequence[int]], *, every: bool = False) -> dict[int, F32]:
        """Append tokens to several sequences at once and return each one's logits ``(k, n_vocab)``.

        One backend step when all fit into a chunk of 512 rows, else as many as needed; ``every`` asks for the logits
        of every row instead of the last. After an exception every sequence is as it was before the failing chunk.

        Raises:
            ContextError: a sequence would grow past ``n_ctx``; nothing was run.
        """
        pending: dict[int, Sequence[int]] = {sequence: list(ids) for sequence, ids in tokens.items()}
        for sequence, ids in pending.items():
            self.check_room(len(ids), sequence)
        results: dict[int, list[F32]] = {sequence: [] for sequence in pending}
        while pending:
            chosen, pending = take_chunk(pending)
            outputs: dict[int, Outputs] = {s: "all" if every else "none" if s in pending else "last" for s in chosen}
            for sequence, values in self.advance(chosen, outputs).items():
                results[sequence].append(values)
        return {sequence: np.concatenate(parts) for sequence, parts in results.items()}

    def advance(
        self, tokens: Mapping[int, Sequence[int]], outputs: Mapping[int, Outputs], *, want: Want = "logits"
    ) -> dict[int, F32]:
        """Exactly one backend step: append tokens to sequences, and return float32 ``(k, n_vocab)`` or ``(k, n_embd)``.

        Args:
            tokens: at least one id for each sequence.
            outputs: which rows of each sequence to return: ``none``, ``last`` or ``all``; sequences with none are
                left out of the result.
            want: logits, or hidden states after the output norm.
        """
        self._check_open()
        ids: list[int] = []
        runs: list[Run] = []
        parts: dict[int, list[int]] = {}
        wanted: dict[int, range] = {}
        for sequence, given in tokens.items():
            part = parts[sequence] = self.valid(given)
            if not part:
                raise ContextError("no tokens were given", where=f"sequence {sequence}")
            start, first = len(self._tokens.get(sequence, ())), len(ids)
            stop = start + len(part)
            if stop > self.n_ctx:
                raise self._too_long(stop, sequence)
            ids += part
            runs.append(Run(sequence, start, len(part)))
            if (asked := outputs[sequence]) != "none":
                wanted[sequence] = range(first if asked == "all" else len(ids) - 1, len(ids))
        rows = [row for part_rows in wanted.values() for row in part_rows]
        adapters = {sequence: self._adapters[sequence] for sequence in parts if sequence in self._adapters}
        values = self._run(Batch(ids, tuple(runs), rows, want, adapters=adapters)).values
        for sequence, part in parts.items():
            self._tokens.setdefault(sequence, []).extend(part)
        results, at = {}, 0
        for sequence, part_rows in wanted.items():
            results[sequence] = values[at : at + len(part_rows)]
            at += len(part_rows)
        return results

    def hidden(self, tokens: Iterable[int], sequence: int = 0) -> F32:
        """Append tokens and return the hidden state after the output norm, float32 ``(k, n_embd)``, of every one."""
        pending: dict[int, Sequence[int]] = {sequence: list(tokens)}
        self.check_room(len(pending[sequence]), sequence)
        parts = []
        while pending:
            chosen, pending = take_chunk(pending)
            parts.append(self.advance(chosen, {sequence: "all"}, want="hidden")[sequence])
        return np.concatenate(parts)

    def check_room(self, n: int, sequence: int = 0) -> None:
        """ContextError with both numbers when ``n`` more tokens do not fit into ``n_ctx``."""
        if (n := n + self.length(sequence)) > self.n_ctx:
            raise self._too_long(n, sequence)

    def _too_long(self, n: int, sequence: int) -> ContextError:
        return ContextError(
            f"a text of {n} tokens does not fit into the context of {self.n_ctx}",
            where=f"sequence {sequence}" if sequence else "prompt",
            fix="shorten the prompt, ask for a longer context (--ctx), or let old text fall out (--context shift)",
        )

    def adapt(self, sequence: int, adapter: str | None) -> None:
        """Run a sequence through a LoRA adapter from now on, or through the plain model; it must be empty."""
        self._check_open()
        if self._tokens.get(sequence):
            raise BackendError("holds tokens that another adapter computed", where=f"sequence {sequence}")
        self._adapters.pop(sequence, None)
        if adapter is not None:
            self._adapters[sequence] = adapter

    def reach(self, sequence: int, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that a sequence can go back to."""
        return min(n, self.length(sequence))

    def mark(self, sequence: int = 0) -> None:
        """Keep a way back to what the sequence holds now; a cache of plain keys and values can go back anywhere."""
        self._check_open()

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens."""
        self._check_open()
        self._cache.truncate(sequence, n)
        self._tokens[sequence] = self._tokens.get(sequence, [])[:n]

    def fork(self, source: int, target: int, n: int | None = None) -> None:
        """Let ``target`` begin with the first ``n`` tokens of ``source`` (all by default), sharing their memory."""
        self._check_open()
        n = self.length(source) if n is None else n
        self._cache.fork(source, target, n)
        self._tokens[target] = self._tokens.get(source, [])[:n]
        adapter = self._adapters.get(source)
        self._adapters.pop(target, None)
        if adapter is not None:
            self._adapters[target] = adapter

    def drop(self, sequence: int) -> None:
        """Forget a sequence."""
        self._check_open()
        self._cache.drop(sequence)
        self._tokens.pop(sequence, None)
        self._adapters.pop(sequence, None)

    def rewrite(self, sequence: int, tokens: Sequence[int]) -> None:
        """Make a sequence hold ``tokens``: the common beginning stays, the rest is computed again at its new places."""
        self._check_open()
        if len(tokens) > self.n_ctx:
            raise self._too_long(len(tokens), sequence)
        old = self._tokens.get(sequence, [])
        same = n_common(old, tokens)
        self.truncate(sequence, same)
        if same < len(tokens):
            self.feed(tokens[same:], sequence)

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

    def close(self) -> None:
        """Free the cache. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            del self._cache
            self._tokens.clear()
            if self._borrowed is not None:
                self._borrowed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("is closed", where="session", fix="make a new one from the model")

    def _n_tokens(self) -> int:
        return sum(map(len, self._tokens.values()))

    def _fill(self, model: Model, cache: Cache) -> None:
        """Bring an empty cache to what this session knows; beginnings that sequences share are shared again."""
        done: list[int] = []
        for sequence, ids in self._tokens.items():
            adapter = self._adapters.get(sequence)
            alike = [other for other in done if self._adapters.get(other) == adapter]
            shared = {other: n_common(self._tokens[other], ids) for other in alike}
            source = max(shared, key=lambda other: shared[other], default=None)
            start = 0 if source is None else shared[source]
            if source is not None and start:
                cache.fork(source, sequence, start)
            for at in range(start, len(ids), CHUNK):
                part = ids[at : at + CHUNK]
                batch = Batch.of(part, position=at, sequence=sequence, outputs=[])
                model.step(batch if adapter is None else evolve(batch, adapters={sequence: adapter}), cache)
            done.append(sequence)

    def valid(self, tokens: Iterable[int]) -> list[int]:
        """The ids as a list; one outside the vocabulary is a BackendError, or clamped under ``degrade``."""
        ids = list(map(operator.index, tokens))
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

    def _run(self, batch: Batch) -> Output:
        while True:
            try:
                output = self.model.step(batch, self._cache)
            except (KeyboardInterrupt, MemoryError, MemoryLimitError, ContextError, ClosedError):
                raise
            except Exception as error:
                self._recover(error)
                continue
            self.stats.failures_in_row = 0
            self.stats.steps += 1
            self.stats.rows += batch.n
            return output

    def _recover(self, error: Exception) -> None:
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


def n_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def take_chunk(pending: Mapping[int, Sequence[int]]) -> tuple[Mapping[int, Sequence[int]], dict[int, Sequence[int]]]:
    """Split what sequences wait for into one step of at most `CHUNK` rows, and what is left after it.

    Where not all of it fits, those with the least to feed go first, so that a long prompt never holds up a text that is
    decoding.
    """
    if sum(map(len, pending.values())) <= CHUNK:
        return pending, {}
    chosen: dict[int, Sequence[int]] = {}
    rest: dict[int, Sequence[int]] = {}
    room = CHUNK
    for sequence, ids in sorted(pending.items(), key=lambda item: len(item[1])):
        part = ids[:room]
        room -= len(part)
        if part or not ids:
            chosen[sequence] = part
        if len(part) < len(ids):
            rest[sequence] = ids[len(part) :]
    return chosen, rest
