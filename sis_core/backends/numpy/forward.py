"""Layers in sequence over one paged cache: the forward of backends that answer by the layer or by the linear."""

from __future__ import annotations

import numpy as np
from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache, Layer, Linear
from sis_core.backends.numpy.activations import softcap
from sis_core.backends.numpy.blas import BLAS_THREADS
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.backends.row_by_row import step_rows
from sis_core.block import Network
from sis_core.cache.paged import Layout, PagedCache
from sis_core.cache.pages import PAGE_SIZE
from sis_core.cache.tables import state_nbytes
from sis_core.errors import BackendError
from sis_core.step import Batch, Output


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
    layout: Layout
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
            Layout(network.blocks, layers),
            n_threads,
        )

    @property
    def batch_invariant(self) -> bool:
        return False  # BLAS sums in another order for another number of rows

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        n_bytes = 0
        for layer, record in zip(self.bound, self.layout.states, strict=True):
            if record is not None and (state := layer.new_state(kv_type, 1, PAGE_SIZE)):
                n_bytes += state_nbytes(record, state.page_nbytes, max_tokens)
        return n_bytes

    def new_cache(self, kv_type: str, max_tokens: int) -> PagedCache:
        states = [
            layer.new_state(kv_type, self.layout.n_pages(i, max_tokens), PAGE_SIZE)
            for i, layer in enumerate(self.bound)
        ]
        return PagedCache(self.layout, states, max_tokens, kv_type, self.token)

    def step(self, batch: Batch, cache: Cache) -> Output:
        if not isinstance(cache, PagedCache):
            raise BackendError("this cache was made by another backend", where="step")
        cache.check_owner(self.token)
        if batch.adapters:
            raise BackendError("this backend knows no adapters", where="step")
        if batch.alone:
            return step_rows(self.step, batch, cache)
        # What is no number is told by whoever uses the results, not by numpy's warnings.
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with BLAS_THREADS.limited(self.n_threads), quiet, cache.reserve(batch) as plans:
            x = self._embed(batch)
            for layer, table, state in zip(self.bound, self.layout.table_of, cache.read, strict=True):
                x = layer(x, plans[table], state)
            attention = tuple(shares for plan in plans for shares in plan.watch or ())
            return Output(self._finish(x[batch.outputs], batch), attention=attention)

    def _embed(self, batch: Batch) -> F32:
        if batch.hidden is not None:
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
