"""The kit for backends names what is wrong with steps and caches, where each linear and each layer is right."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import pytest
from attrs import evolve

from sis_core.backend import Backend, BackendOptions, Cache, Forward
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.block import Network
from sis_core.cache.paged import PagedCache
from sis_core.cache.pages import PageTable
from sis_core.cache.table import Reservation
from sis_core.quant import F32Format
from sis_core.step import Batch, Output, Plan
from sis_core.testing import check_backend


class _SpoiledForward:
    """A sequential forward whose step or cache is spoiled."""

    batch_invariant = False

    def __init__(self, network: Network, layers: range) -> None:
        bound = tuple(ReferenceLayer.of(network.blocks[i], ReferenceLinear) for i in layers)
        head = ReferenceLinear(network.head.dense.weight)
        self.inner = SequentialForward.of(network, layers, bound, ("spoiled",) * len(layers), head)
        self.layers, self.grains = self.inner.layers, self.inner.grains

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self.inner.new_cache(kv_type, max_tokens)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return self.inner.cache_nbytes(kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return self.inner.step(batch, cache)

    def _with(self, kind: type[PagedCache], kv_type: str, max_tokens: int) -> PagedCache:
        plain = self.inner.new_cache(kv_type, max_tokens)
        return kind(plain.layout, plain.states, max_tokens, plain.kv_type, plain.owner)

    def _with_tables(self, kind: type[PageTable], kv_type: str, max_tokens: int) -> PagedCache:
        plain = self.inner.new_cache(kv_type, max_tokens)
        plain.tables.all = [kind(table.pool.n_pages) for table in plain.tables.all]
        return plain


def forward_backend(kind: type[_SpoiledForward]) -> Backend:
    class Spoiled(Backend):
        name = "spoiled"

        def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
            return kind(network, layers)

    return Spoiled()


class ForgetsOrder(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        output = self.inner.step(batch, cache)
        order = np.argsort(batch.outputs)
        return Output(output.values[order])


class GivesHiddenBeforeTheNorm(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        inner = self.inner if batch.want == "logits" else evolve(self.inner, output_norm=None)
        return inner.step(batch, cache)


class NotAllOrNothing(_SpoiledForward):
    """Extends the cache before it looks at the tokens."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        assert isinstance(cache, PagedCache)
        assert batch.tokens is not None
        if batch.tokens.min() < 0 or batch.tokens.max() >= self.inner.network.n_vocab:
            with cache.reserve(batch):
                pass
        return self.inner.step(batch, cache)


class TakesAnyToken(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        assert batch.tokens is not None
        return self.inner.step(evolve(batch, tokens=batch.tokens % self.inner.network.n_vocab), cache)


class RaisesForeignErrors(_SpoiledForward):
    def step(self, batch: Batch, cache: Cache) -> Output:
        try:
            return self.inner.step(batch, cache)
        except Exception as error:
            raise IndexError("somewhere") from error


class _CopyingCache(PagedCache):
    """Pages are copied on fork, as by somebody who kept the shape of paging and not its point."""

    def fork(self, source: int, target: int, n: int) -> None:
        if not n:
            return
        for table, copy in zip(self.tables.all, self._copies, strict=True):
            old = table.pages(source)
            for a, b in zip(old, table.replace(target, n), strict=False):
                copy(a, b)


class CopiesOnFork(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self._with(_CopyingCache, kv_type, max_tokens)


class _LeakyTable(PageTable):
    def drop(self, sequence: int) -> None:
        self._sequences.pop(sequence, None)


class LeaksPages(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self._with_tables(_LeakyTable, kv_type, max_tokens)


class _Sharing(PageTable):
    """Forgets copy on write."""

    def extend(self, step: Reservation) -> Plan:
        uses, self.pool.uses = self.pool.uses, [min(n, 1) for n in self.pool.uses]
        try:
            return super().extend(step)
        finally:
            self.pool.uses = [max(a, b) for a, b in zip(uses, self.pool.uses, strict=True)]


class ForgetsCopyOnWrite(_SpoiledForward):
    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self._with_tables(_Sharing, kv_type, max_tokens)


class _DeafCache(PagedCache):
    """Truncates nothing."""

    def truncate(self, sequence: int, n: int) -> None:
        pass


class _ForgetfulCache(PagedCache):
    """Saves the keys of the first layer only."""

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        super().load(sequence, data)
        last = self.states[-1]
        assert last is not None
        for page in self.tables.all[self.layout.table_of[-1]].pages(sequence):
            last.load_page(page, bytes(last.page_nbytes))


def caching(kind: type[PagedCache]) -> Backend:
    class Caching(_SpoiledForward):
        def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
            return self._with(kind, kv_type, max_tokens)

    return forward_backend(Caching)


class WritesBeforeItRefuses(_SpoiledForward):
    """Overwrites the last page when a step is refused, though the length is kept."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        try:
            return self.inner.step(batch, cache)
        except Exception:
            assert isinstance(cache, PagedCache)
            for state, table in zip(cache.states, cache.layout.table_of, strict=True):
                for page in cache.tables.all[table].pages(0):
                    assert state is not None
                    state.load_page(page, bytes(state.page_nbytes))
            raise


class SharesScratch(_SpoiledForward):
    """Keeps its rows where another thread finds them."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        self.scratch = self.inner.step(batch, cache).values
        time.sleep(0.002)
        return Output(self.scratch)


WRONG: list[tuple[str, Backend, str]] = [
    ("forgets output order", forward_backend(ForgetsOrder),
     r"(?s)hidden states of three rows.*the rows are right but in another order: \[2, 0, 1\]"),
    ("hidden before the norm", forward_backend(GivesHiddenBeforeTheNorm),
     "(?s)hidden states of three rows.*wanted after the output norm.*"
     "these are the numbers of a backend that forgets the output norm"),
    ("not all or nothing", forward_backend(NotAllOrNothing),
     "a token outside the vocabulary left 41 tokens in the cache, not 40"),
    ("writes before it refuses", forward_backend(WritesBeforeItRefuses),
     "(?s)the sequence after refused steps.*a refused step has written keys or values"),
    ("takes any token", forward_backend(TakesAnyToken), "a token outside the vocabulary was not refused"),
    ("foreign errors", forward_backend(RaisesForeignErrors), "another model's cache raised IndexError"),
    ("copies on fork", forward_backend(CopiesOnFork), "fork copied the cache"),
    ("leaks pages", forward_backend(LeaksPages), "bytes are in use after every sequence was dropped"),
    ("no copy on write", forward_backend(ForgetsCopyOnWrite),
     "(?s)the source after its fork went another way.*a page that sequences share must be copied before it is written"),
    ("cache not truncated", caching(_DeafCache), "a fork that was cut back has 38 tokens in the cache, not 35"),
    ("half a saved sequence", caching(_ForgetfulCache),
     "(?s)a saved and loaded sequence.*save and load do not keep every key and value"),
    ("not thread-safe", forward_backend(SharesScratch),
     "steps in threads gave other numbers than alone: all that changes belongs into the cache"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_backend_is_named(backend: Backend, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_backend(backend, formats=[F32Format()], kv_types=["f32"])
