"""A session: sequences of tokens over one cache. Cheap to make, used from one thread at a time.

The session keeps each sequence's token ids, so it can always build its cache again; `sis_core.texts.feeding` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast, get_args

import numpy as np

from sis_core.arrays import F32
from sis_core.block import STEP_ROWS
from sis_core.errors import BackendError, ContextError
from sis_core.loading.checks import check_option, token_ids
from sis_core.loading.model import Model
from sis_core.loading.options import Policy
from sis_core.step import MAX_INT32
from sis_core.texts.common import n_common
from sis_core.texts.feeding import Feeding, go_back
from sis_core.texts.part import Asked, Part, Want
from sis_core.texts.retention import Retention

CHUNK = STEP_ROWS  # rows of a prefill step: what one Ctrl-C waits for
WANTS = get_args(Want)


class Session(Feeding):
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
        check_option("n_ctx", n_ctx, kind=int, optional=True)
        check_option("max_tokens", max_tokens, least=1, optional=True)
        check_option("on_error", on_error, choices=get_args(Policy))
        self.n_ctx = model.config.n_ctx if n_ctx is None else n_ctx
        if not 1 <= self.n_ctx <= model.config.n_ctx:
            most = model.config.n_ctx
            raise ContextError(
                f"a context of {self.n_ctx} tokens is not within 1 to the {most} the model was loaded for",
                where="session",
                fix="load the model with a longer context (n_ctx, --ctx)",
            )
        super().__init__(model, max(self.n_ctx if max_tokens is None else max_tokens, self.n_ctx), on_error)

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
        check_option("sequence", sequence, kind=int)
        return self.step({sequence: token_ids(tokens, "tokens")}, every=every)[sequence]

    def step(self, tokens: Mapping[int, Sequence[int]], *, every: bool = False) -> dict[int, F32]:
        """Append tokens to several sequences at once and return each one's logits ``(k, n_vocab)``.

        One backend step when all fit into `step_rows`, else as many as needed; ``every`` asks for the logits
        of every row instead of the last. After an exception every sequence is as it was before the failing chunk.

        Raises:
            ContextError: a sequence would grow past ``n_ctx``; nothing was run.
        """
        check_option("tokens", tokens, kind=Mapping)
        pending: dict[int, Sequence[int]] = {sequence: token_ids(ids, "tokens") for sequence, ids in tokens.items()}
        for sequence, ids in pending.items():
            self.check_room(len(ids), sequence)
        results: dict[int, list[F32]] = {sequence: [] for sequence in pending}
        while pending:
            chosen, pending = take_chunk(pending, self.step_rows, self.until)
            outputs = {s: len(ids) if every else 0 if s in pending else 1 for s, ids in chosen.items()}
            for sequence, values in self.advance(chosen, outputs).items():
                results[sequence].append(values)
        return {sequence: np.concatenate(parts) for sequence, parts in results.items()}

    def advance(
        self,
        tokens: Mapping[int, Sequence[int]],
        outputs: Mapping[int, int],
        *,
        want: Want = "logits",
        alone: bool = False,
    ) -> dict[int, F32]:
        """One backend step: append tokens to sequences, and return float32 ``(k, n_vocab)`` or ``(k, n_embd)``.

        What the cache lacks of these sequences is fed with them, or in steps before where it is much; see `behind`.
        After an exception every sequence is as it was.

        Args:
            tokens: at least one id for each sequence.
            outputs: how many of each sequence's last rows to return; sequences with none are left out of the result.
            want: logits, or hidden states after the output norm.
            alone: compute each row as if it were by itself; see `Batch.alone`.
        """
        self._check_open()
        check_option("want", want, choices=WANTS)
        check_option("outputs", outputs, kind=Mapping)
        parts: list[Part] = []
        for sequence, given in tokens.items():
            check_option("sequence", sequence, kind=int)
            ids, wanted = self.valid(given), outputs.get(sequence)
            if not ids:
                raise ContextError("no tokens were given", where=f"sequence {sequence}")
            check_option("outputs", wanted, least=0, most=len(ids))
            assert wanted is not None
            self.check_room(len(ids), sequence)
            if len(ids) > (most := self.until(sequence)):
                raise ContextError(
                    f"a step of {len(ids)} tokens goes past a place where pages are given back: {most} fit",
                    where=f"sequence {sequence}",
                )
            parts.append(Part(sequence, ids, wanted))
        results = cast(dict[int, F32], self.run(parts, Asked(want, alone)))
        return {part.sequence: results[part.sequence] for part in parts if part.outputs}

    def hidden(self, tokens: Iterable[int], sequence: int = 0) -> F32:
        """Append tokens and return the hidden state after the output norm, float32 ``(k, n_embd)``, of every one."""
        check_option("sequence", sequence, kind=int)
        pending: dict[int, Sequence[int]] = {sequence: token_ids(tokens, "tokens")}
        self.check_room(len(pending[sequence]), sequence)
        parts = []
        while pending:
            chosen, pending = take_chunk(pending, self.step_rows, self.until)
            parts.append(self.advance(chosen, {sequence: len(chosen[sequence])}, want="hidden")[sequence])
        return np.concatenate(parts)

    def check_room(self, n: int, sequence: int = 0) -> None:
        """ContextError with both numbers when ``n`` more tokens do not fit into ``n_ctx``."""
        if (n := n + self.length(sequence)) > self.limit(sequence):
            raise self._too_long(n, sequence)

    def _too_long(self, n: int, sequence: int) -> ContextError:
        return ContextError(
            f"a text of {n} tokens does not fit into the context of {self.n_ctx}",
            where=f"sequence {sequence}" if sequence else "prompt",
            fix="shorten the prompt, ask for a longer context (--ctx), or let old text fall out (--context shift)",
        )

    def adapt(self, sequence: int, adapter: str | None) -> None:
        """Run a sequence through a LoRA adapter from now on, or through the plain model; it must be empty.

        BackendError when the model has no such adapter.
        """
        self._check_open()
        check_option("adapter", adapter, kind=str, optional=True)
        if adapter is not None and adapter not in self.model.adapters:
            raise BackendError(f"the model has no adapter {adapter!r}", where=f"sequence {sequence}")
        if self._tokens.get(sequence):
            raise BackendError("holds tokens that another adapter computed", where=f"sequence {sequence}")
        self._adapters.pop(sequence, None)
        if adapter is not None:
            self._adapters[sequence] = adapter

    def retain(self, sequence: int, retention: Retention | None) -> None:
        """Let a sequence keep no more of its past in the cache than ``retention`` says, or all of it.

        ContextError where the model has no places for a text that is longer than its context.
        """
        self._check_open()
        check_option("sequence", sequence, kind=int)
        self._retentions.pop(sequence, None)
        if retention is None:
            return
        if retention.limit and (table := self.model.network.embedding.positions) is not None:
            raise ContextError(
                f"this model has learned its {table.n_rows} places, and a text whose places stay would go past them",
                where="context",
                fix="use --context shift, which computes what stays again at new places",
            )
        self._retentions[sequence] = retention

    def limit(self, sequence: int) -> int:
        """Tokens that a sequence may come to: `n_ctx`, unless what it retains says otherwise."""
        retention = self._retentions.get(sequence)
        return retention.limit or self.n_ctx if retention else self.n_ctx

    def until(self, sequence: int) -> int:
        """Tokens that may be fed to a sequence in one step, as far as what it retains goes."""
        retention = self._retentions.get(sequence)
        return retention.until(self.length(sequence)) if retention else MAX_INT32

    def n_evicted(self, sequence: int) -> int:
        """Tokens of a sequence whose pages were evicted."""
        self._check_open()
        return self._cache.n_evicted(sequence) if sequence in self._retentions else 0

    def n_shared(self, source: int, n: int, retention: Retention | None) -> int:
        """Of the first ``n`` tokens of a sequence, how many another that retains so much may begin with."""
        self._check_open()
        n = min(n, self.length(source))
        own = self._retentions.get(source)
        if own != retention:
            n = min(n, *(rule.n_alike for rule in (own, retention) if rule))
            n = min(n, self._cache.whole(source)) if own else n
        return self._cache.reach(source, n)

    def reach(self, sequence: int, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that a sequence can go back to without being fed
        again; see `Cache.reach`."""
        self._check_open()
        check_option("n", n, least=0)
        return self._cache.reach(sequence, min(n, self.length(sequence)))

    def behind(self, sequence: int = 0) -> int:
        """Tokens of the sequence that the cache lacks: so many rows more its next step feeds."""
        self._check_open()
        return max(0, self.length(sequence) - self._cache.length(sequence))

    def mark(self, sequence: int = 0) -> None:
        """Keep a way back to what the sequence holds now; see `Cache.mark`."""
        self._check_open()
        if self._cache.length(sequence) == self.length(sequence):
            self._cache.mark(sequence)

    def truncate(self, sequence: int, n: int) -> None:
        """Keep the first ``n`` tokens. Where the cache can only go back further, the next step feeds the difference.

        ContextError for a sequence that nothing was fed to, or that has fewer tokens.
        """
        ids = self._known(sequence)
        check_option("n", n, kind=int)
        if not 0 <= n <= len(ids):
            raise ContextError(f"cannot keep {n} tokens of {len(ids)}", where=f"sequence {sequence}")
        self._tokens[sequence] = ids[:n]  # first: an interrupt leaves a cache that holds more, which a step mends
        if self._cache.length(sequence) > n:
            go_back(self._cache, sequence, n)

    def fork(self, source: int, target: int, n: int | None = None) -> None:
        """Let ``target`` begin with the first ``n`` tokens of ``source`` (all by default), sharing their memory.

        ContextError for a source that nothing was fed to, or that has fewer tokens.
        """
        ids = self._known(source)
        check_option("target", target, kind=int)
        check_option("n", n, kind=int, optional=True)
        n = len(ids) if n is None else n
        if not 0 <= n <= len(ids):
            raise ContextError(f"cannot share {n} tokens of {len(ids)}", where=f"sequence {source}")
        if source == target:
            return self.truncate(source, n)
        self.drop(target)
        if (adapter := self._adapters.get(source)) is not None:
            self._adapters[target] = adapter
        if (retention := self._retentions.get(source)) is not None:
            self._retentions[target] = retention
        self._tokens[target] = ids[:n]
        self._cache.fork(source, target, self._cache.reach(source, n))
        return None

    def drop(self, sequence: int) -> None:
        """Forget a sequence."""
        self._check_open()
        self._tokens.pop(sequence, None)
        self._cache.drop(sequence)
        self._adapters.pop(sequence, None)
        self._retentions.pop(sequence, None)

    def save(self, sequence: int = 0) -> Iterator[bytes]:
        """What the cache holds of a sequence, page by page, for `load` of a session over the same model, backend and
        cache type. The sequence must not change before the last page was taken.

        ContextError for a sequence that nothing was fed to, and while the cache is `behind`.
        """
        self._known(sequence)
        if n := self.behind(sequence):
            raise ContextError(f"{n} tokens are still to be fed", where=f"sequence {sequence}")
        return self._cache.save(sequence)

    def load(self, tokens: Iterable[int], data: Iterable[bytes], sequence: int = 0) -> None:
        """Replace a sequence by a saved one of these ``tokens``.

        After an error the sequence is empty. BackendError: the data are not what `save` gave for them.
        MemoryLimitError: there is no room.
        """
        self._check_open()
        check_option("sequence", sequence, kind=int)
        check_option("data", data, kind=Iterable)
        ids = self.valid(tokens)
        self.drop(sequence)
        self.check_room(len(ids), sequence)
        try:
            self._cache.load(sequence, data)
            if (n := self._cache.length(sequence)) != len(ids):
                raise BackendError(f"{n} tokens were saved, not {len(ids)}", where=f"sequence {sequence}")
        except BaseException:
            self._cache.drop(sequence)
            raise
        self._tokens[sequence] = ids

    def rewrite(self, sequence: int, tokens: Sequence[int]) -> None:
        """Make a sequence hold ``tokens``: the common beginning stays, the rest is computed again at its new places."""
        self._check_open()
        check_option("sequence", sequence, kind=int)
        tokens = token_ids(tokens, "tokens")
        if len(tokens) > self.limit(sequence):
            raise self._too_long(len(tokens), sequence)
        old = self._tokens.get(sequence, [])
        same = n_common(old, tokens)
        if same < len(old):
            self.truncate(sequence, same)
        if same < len(tokens):
            self.feed(tokens[same:], sequence)

    def close(self) -> None:
        """Free the cache. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            del self._cache
            self._tokens.clear()
            if self._borrowed is not None:
                self._borrowed.close()

    def _known(self, sequence: int) -> list[int]:
        """The ids of a sequence; ContextError where there is none of that number."""
        self._check_open()
        check_option("sequence", sequence, kind=int)
        if (ids := self._tokens.get(sequence)) is None:
            known = ", ".join(map(str, list(self._tokens)[:8])) or "none"
            raise ContextError("there is no such sequence", where=f"sequence {sequence}", fix=f"there are: {known}")
        return ids


def take_chunk(
    pending: Mapping[int, Sequence[int]], rows: int, until: Callable[[int], int]
) -> tuple[Mapping[int, Sequence[int]], dict[int, Sequence[int]]]:
    """Split what sequences wait for into one step of at most ``rows`` rows, and what is left after it.

    Where not all of it fits, those with the least to feed go first, so that a long prompt never holds up a text that is
    decoding. ``until`` says how much of each sequence a step may hold.
    """
    if sum(map(len, pending.values())) <= rows and all(len(ids) <= until(s) for s, ids in pending.items()):
        return pending, {}
    chosen: dict[int, Sequence[int]] = {}
    rest: dict[int, Sequence[int]] = {}
    room = rows
    for sequence, ids in sorted(pending.items(), key=lambda item: len(item[1])):
        part = ids[: min(room, until(sequence))]
        room -= len(part)
        if part or not ids:
            chosen[sequence] = part
        if len(part) < len(ids):
            rest[sequence] = ids[len(part) :]
    return chosen, rest
