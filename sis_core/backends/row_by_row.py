"""Results that do not depend on which rows share a step: every row in a step of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache, Forward
from sis_core.step import Batch, Output, Run


@frozen(eq=False)
class RowByRow:
    """A forward that gives ``inner`` one row at a time, so that one order of arithmetic serves all row counts.

    Prompts are then read at the speed of decoding. All or nothing, like any forward.
    """

    inner: Forward

    @property
    def layers(self) -> range:
        return self.inner.layers

    @property
    def grains(self) -> tuple[str, ...]:
        return tuple(f"{grain}, row by row" for grain in self.inner.grains)

    @property
    def batch_invariant(self) -> bool:
        return True

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self.inner.new_cache(kv_type, max_tokens)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return self.inner.cache_nbytes(kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        return step_rows(self.inner.step, batch, cache)


def step_rows(step: Callable[[Batch, Cache], Output], batch: Batch, cache: Cache) -> Output:
    """What `Forward.step` gives for a batch, by one ``step`` for each of its rows; after an exception the cache is as
    before."""
    if batch.n == 1:
        return step(evolve(batch, alone=False), cache)
    wanted = set(batch.outputs.tolist())
    for run in batch.runs:
        cache.mark(run.sequence)  # the way back, should a later row fail
    found: dict[int, F32] = {}
    attention: list[tuple[F32, ...]] = []
    width = 0
    degraded = False
    try:
        for row, one in enumerate(_rows(batch, wanted)):
            output = step(one, cache)
            degraded |= output.degraded
            width = output.values.shape[1]
            attention.append(output.attention)
            if row in wanted:
                found[row] = output.values[0]
    except BaseException:
        for sequence, start, _ in batch.runs:
            cache.truncate(sequence, min(start, cache.length(sequence)))
        raise
    rows = [found[row] for row in batch.outputs.tolist()]
    values = np.stack(rows) if rows else np.empty((0, width), np.float32)
    return Output(values, degraded, tuple(_joined(layer) for layer in zip(*attention, strict=True)))


def _joined(rows: Sequence[F32]) -> F32:
    """One layer's part of `Output.attention` from those of single rows: later rows may have more pages."""
    n_pages = rows[-1].shape[2]
    return np.concatenate([np.pad(row, ((0, 0), (0, 0), (0, n_pages - row.shape[2]))) for row in rows], axis=1)


def _rows(batch: Batch, wanted: Set[int]) -> Iterator[Batch]:
    row = 0
    for sequence, start, n in batch.runs:
        for position in range(start, start + n):
            part = slice(row, row + 1)
            yield evolve(
                batch,
                tokens=None if batch.tokens is None else batch.tokens[part],
                hidden=None if batch.hidden is None else batch.hidden[part],
                runs=(Run(sequence, position, 1),),
                outputs=[0] if row in wanted else [],
                alone=False,
                greedy=False,
            )
            row += 1
