"""Layers in sequence over one paged cache: the forward of backends that answer by the layer or by the linear."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np
from attrs import define, field, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache, Layer, LayerState, Linear
from sis_core.backends.numpy.activations import softcap
from sis_core.backends.numpy.blas import BLAS_THREADS
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.backends.row_by_row import step_rows
from sis_core.block import Network
from sis_core.cache.pages import PAGE_SIZE, PageTable, Reservation, pages_for
from sis_core.cache.pieces import Pieces
from sis_core.errors import BackendError
from sis_core.step import Batch, Output

MAGIC = b"sis-kv-1\n"
MAX_HEADER = 1 << 16


@define(eq=False)
class PagedCache:
    """A page table and, for each layer, the storage its backend made.

    Attributes:
        owner: a token of the forward that made the cache; another one must not touch storage of another shape.
    """

    table: PageTable
    states: list[LayerState | None]
    kv_type: str
    owner: object

    @property
    def nbytes(self) -> int:
        return self.table.n_used * sum(state.page_nbytes for state in self.states if state)

    def length(self, sequence: int) -> int:
        return self.table.length(sequence)

    @property
    def n_free(self) -> int:
        return self.table.n_free

    def reach(self, sequence: int, n: int) -> int:
        return min(n, self.table.length(sequence))

    def truncate(self, sequence: int, n: int) -> None:
        self.table.truncate(sequence, n)

    def fork(self, source: int, target: int, n: int) -> None:
        self.table.fork(source, target, n)

    def mark(self, sequence: int) -> None:
        """Everything is kept anyway."""

    def drop(self, sequence: int) -> None:
        self.table.drop(sequence)

    def check_owner(self, owner: object) -> None:
        """BackendError unless the forward with this token made the cache."""
        if self.owner is not owner:
            raise BackendError("this cache was made by another model or backend", where="step")

    def reserve(self, batch: Batch) -> Reservation:
        """Room for a batch while it runs, shared pages copied before they are written; see `PageTable.reserve`."""
        return self.table.reserve(batch, self._copy_page)

    def _copy_page(self, source: int, target: int) -> None:
        for state in self.states:
            if state:
                state.copy_page(source, target)

    def _shape(self) -> list[int]:
        return [state.page_nbytes if state else 0 for state in self.states]

    def save(self, sequence: int) -> Iterator[bytes]:
        header = {"length": self.length(sequence), "kv_type": self.kv_type, "page_nbytes": self._shape()}
        yield MAGIC + json.dumps(header).encode() + b"\n"
        for page in self.table.pages(sequence):
            yield b"".join(state.save_page(page) for state in self.states if state)

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        saved = Pieces(data)
        wrong = BackendError("these bytes are not a saved sequence of this model and cache type", where="cache")
        try:
            if saved.take(len(MAGIC)) != MAGIC:
                raise wrong
            header = json.loads(saved.line(MAX_HEADER))
            length, kv_type, shape = header["length"], header["kv_type"], header["page_nbytes"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise wrong from None
        if kv_type != self.kv_type or shape != self._shape() or not isinstance(length, int) or length < 0:
            raise wrong
        pages = self.table.replace(sequence, length)
        try:
            for page in pages:
                for state in self.states:
                    if state:
                        state.load_page(page, saved.take(state.page_nbytes))
            if saved.take(1):
                raise wrong
        except BaseException as error:
            self.drop(sequence)
            raise wrong if isinstance(error, BackendError) else error from None


@frozen(eq=False)
class SequentialForward:
    """Embedding, a range of bound layers, and the head; each layer and linear by whichever backend bound it.

    While it runs, numpy's BLAS uses no more threads than the model was given.
    """

    network: Network
    layers: range
    bound: tuple[Layer, ...]
    grains: tuple[str, ...]
    head: BoundDense | None
    output_norm: BoundNorm | None
    embedding: BoundEmbedding
    n_threads: int | None = None
    token: object = field(factory=object)  # what caches keep of their maker, without keeping its weights alive

    @classmethod
    def of(
        cls,
        network: Network,
        layers: range,
        bound: tuple[Layer, ...],
        grains: tuple[str, ...],
        head: Linear | None,
        n_threads: int | None = None,
    ) -> SequentialForward:
        """``bound`` has one layer for each of ``layers``; ``head`` is the output weight, if they reach the end."""
        norm = network.head.norm
        return cls(
            network,
            layers,
            bound,
            grains,
            BoundDense.of(network.head.dense, head) if head else None,
            BoundNorm(norm) if norm and head else None,
            BoundEmbedding(network),
            n_threads,
        )

    @property
    def batch_invariant(self) -> bool:
        return False  # BLAS sums in another order for another number of rows

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return sum(
            state.page_nbytes * pages_for(max_tokens)
            for layer in self.bound
            if (state := layer.new_state(kv_type, 1, PAGE_SIZE))
        )

    def new_cache(self, kv_type: str, max_tokens: int) -> PagedCache:
        n_pages = pages_for(max_tokens)
        states: list[LayerState | None] = [layer.new_state(kv_type, n_pages, PAGE_SIZE) for layer in self.bound]
        return PagedCache(PageTable(n_pages), states, kv_type, self.token)

    def step(self, batch: Batch, cache: Cache) -> Output:
        if not isinstance(cache, PagedCache):
            raise BackendError("this cache was made by another backend", where="step")
        cache.check_owner(self.token)
        if batch.adapters:
            raise BackendError("this backend knows no adapters", where="step")
        if batch.alone:
            return step_rows(self.step, batch, cache)
        with BLAS_THREADS.limited(self.n_threads), cache.reserve(batch) as plan:
            x = self._embed(batch)
            for layer, state in zip(self.bound, cache.states, strict=True):
                x = layer(x, plan, state)
            return Output(self._finish(x[batch.outputs], batch))

    def _embed(self, batch: Batch) -> F32:
        if batch.tokens is None:
            return np.ascontiguousarray(batch.hidden, np.float32)
        self.embedding.check(batch)
        return self.embedding(batch)

    def _finish(self, x: F32, batch: Batch) -> F32:
        if self.head is None:
            return x
        if self.output_norm is not None:
            x = self.output_norm(x)
        if batch.want == "hidden":
            return x
        logits = self.head(x) if len(x) else np.empty((0, self.network.n_vocab), np.float32)
        if self.network.head.scale != 1.0:
            logits *= np.float32(self.network.head.scale)
        if self.network.head.softcap is not None:
            softcap(logits, self.network.head.softcap)
        return logits
