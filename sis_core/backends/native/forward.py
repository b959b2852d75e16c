"""The three grains: a range of layers, one layer, one linear, each one call into native code."""

from __future__ import annotations

import ctypes
from functools import cached_property
from time import perf_counter

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backend import Cache
from sis_core.backends.native.cache import NativeCache, NativeKV, native_states, page_nbytes
from sis_core.backends.native.compiled import Compiled
from sis_core.backends.native.program import Program
from sis_core.backends.native.runner import PATIENCE, Runner
from sis_core.backends.native.weights import Store
from sis_core.backends.numpy.embedding import BoundEmbedding
from sis_core.block import KV, Block, Dense, Network
from sis_core.cache.paged import Layout
from sis_core.cache.pages import PAGE_SIZE
from sis_core.cache.tables import state_nbytes
from sis_core.errors import BackendError
from sis_core.quant import Weight
from sis_core.step import Batch, Best, Group, MultiStepLimit, Output, Plan

NO_PLAN = Plan(np.zeros(1, np.int32), None, np.zeros(1, np.int32), (), PAGE_SIZE)
ROWS = np.zeros(512, np.int32)  # of a long prompt's first step
PROMPT = Plan(ROWS, None, ROWS, (Group(0, len(ROWS), ROWS, len(ROWS)),), PAGE_SIZE)


class NativeForward:
    """A range of layers in one call a step. Thread-safe: what changes lies in the cache.

    Attributes:
        batch_invariant: whether `BackendOptions.batch_invariant` was asked for. Then each row is multiplied as if it
            were alone, at the price of instructions that multiply many rows at once, where the machine has those.
    """

    def __init__(self, name: str, network: Network, layers: range, store: Store, runner: Runner) -> None:
        self.network, self.layers, self.grains = network, layers, (f"{name} forward",) * len(layers)
        self._store, self._runner = store, runner
        self.batch_invariant = runner.invariant
        self._token = object()  # what caches keep of their maker, without keeping its weights alive
        self._layout = Layout(network.blocks, layers)
        self._kv = [kv if isinstance(kv, KV) else None for kv in self._layout.states]  # a program knows no others
        self._starts, self._ends = layers.start == 0, layers.stop == network.n_layer
        self._tables = self._embedding_tables() if self._starts else None
        self._embedding = BoundEmbedding(network)
        self._logits = self._compile(logits=True) if self._ends else self._hidden
        if store.waiting:
            store.ahead.memory(runner.make_room(self._logits, [PROMPT] * len(self._layout.kinds)))

    @cached_property
    def _hidden(self) -> Compiled:
        """Few ask for hidden states: compiled for the first who does."""
        return self._compile(logits=False)

    def _embedding_tables(self) -> tuple[int, int | None] | None:
        """Where native code finds the rows of tokens and positions; None where only Python can decode them."""
        embedding = self.network.embedding
        rows = self._store.table(embedding.weight)
        positions = self._store.table(embedding.positions) if embedding.positions else None
        if rows is None or (embedding.positions and positions is None):
            return None
        return rows, positions

    def _compile(self, *, logits: bool) -> Compiled:
        program = Program(self._store, self._runner.rotations, self.network.n_embd)
        return program.finish(program.network(self.network, self._layout, self._tables, logits=logits))

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        sizes = (state_nbytes(kv, page_nbytes(kv, kv_type, PAGE_SIZE), max_tokens) for kv in self._kv if kv)
        return sum(sizes)

    def new_cache(self, kv_type: str, max_tokens: int) -> NativeCache:
        n_pages = [self._layout.n_pages(i, max_tokens) for i in range(len(self._kv))]
        states = native_states(self._kv, kv_type, n_pages, PAGE_SIZE)
        return NativeCache(self._layout, states, max_tokens, kv_type, self._token)

    def step(self, batch: Batch, cache: Cache) -> Output:
        if not isinstance(cache, NativeCache):
            raise BackendError("this cache was made by another backend", where="step")
        cache.check_owner(self._token)
        if batch.adapters:
            raise BackendError("native layers know no adapters", where="step", fix="choose --backend numpy")
        waiting = self._store.waiting
        packs, started = bool(waiting), 0.0
        if packs:
            self._store.ahead.stop()
            waiting.before_step()
            self._store.in_place.changed()
        tokens = hidden = None
        if batch.hidden is not None or not self._starts:
            hidden = self._given(batch)
        else:
            self._embedding.check(batch)
            if self._tables:
                tokens = batch.ids
            else:
                hidden = self._embedding(batch)
        program = self._logits if batch.want == "logits" else self._hidden
        best: list[Best] | None = [] if batch.greedy and batch.want == "logits" and self._ends else None
        multi_step = None
        if batch.multi_step and tokens is not None and best is not None and not packs:
            multi_step = _within_page(batch.multi_step, batch.runs[0].start)
        if packs:
            started = perf_counter()
        with cache.reserve(batch, multi_step.n if multi_step else 0) as plans:
            values = self._runner.run(
                program, plans, tokens=tokens, hidden=hidden, outputs=batch.rows, kv=cache.address,
                kv_type=cache.kv_type, alone=batch.alone, best=best, multi_step=multi_step,
                patience=0 if packs else PATIENCE,  # memory is scarce while weights lie partly in the file
            )  # fmt: skip
        if multi_step is not None and best is not None and len(best) <= multi_step.n:
            sequence, start, _ = batch.runs[0]
            cache.truncate(sequence, start + len(best))
        if packs:
            waiting.after_step(batch.n, perf_counter() - started)
            self._store.in_place.changed()
        attention = tuple(shares for plan in plans for shares in plan.watch or ()) if batch.watch else ()
        return Output(values, attention=attention, best=best or ())

    def _given(self, batch: Batch) -> F32:
        hidden = np.ascontiguousarray(batch.hidden, np.float32)
        if hidden.shape != (batch.n, self.network.n_embd):
            raise BackendError(f"hidden has shape {hidden.shape}, not {(batch.n, self.network.n_embd)}", where="step")
        return hidden


def _within_page(multi_step: MultiStepLimit, start: int) -> MultiStepLimit | None:
    """No further than the page reaches that a step at place ``start`` writes to: no more room is needed than for it."""
    n = min(multi_step.n, PAGE_SIZE - 1 - start % PAGE_SIZE)
    return multi_step._replace(n=n) if n else None


class NativeLayer:
    """One block, one call."""

    def __init__(self, block: Block, n_embd: int, store: Store, runner: Runner) -> None:
        self._kv = block.state if isinstance(block.state, KV) else None
        self._runner = runner
        self._n_embd = n_embd
        program = Program(store, runner.rotations, n_embd)
        program.block(block)
        program.rows_out()
        self._program = program.finish(n_embd)

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> NativeKV | None:
        return NativeKV(self._kv, kv_type, n_pages, page_size) if self._kv else None

    def __call__(self, hidden: F32, plan: Plan, state: NativeKV | None) -> F32:
        if hidden.ndim != 2 or hidden.shape[1] != self._n_embd:
            raise BackendError(f"hidden has shape {hidden.shape}, not (n, {self._n_embd})", where="step")
        if state is None:
            return self._runner.run(self._program, (plan,), hidden=hidden)
        kv = ctypes.addressof(state.record)
        return self._runner.run(self._program, (plan,), hidden=hidden, kv=kv, kv_type=state.kv_type)


@frozen(eq=False)
class NativeLinear:
    """One weight: ``(n, n_in)`` float32 to ``(n, n_out)``."""

    n_in: int
    program: Compiled
    runner: Runner

    @classmethod
    def of(cls, weight: Weight, store: Store, runner: Runner) -> NativeLinear:
        program = Program(store, runner.rotations, weight.n_cols)
        program.linear_out(Dense(weight))
        return cls(weight.n_cols, program.finish(weight.n_rows), runner)

    def __call__(self, x: F32) -> F32:
        if x.ndim != 2 or x.shape[1] != self.n_in:
            raise BackendError(f"rows have shape {x.shape}, not (n, {self.n_in})", where="linear")
        if not len(x):
            return np.empty((0, self.program.n_out_cols), np.float32)
        return self.runner.run(self.program, (NO_PLAN,), hidden=x)
