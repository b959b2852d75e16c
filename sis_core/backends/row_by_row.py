"""Results that do not depend on which rows share a step: every row in a step of its own."""

from __future__ import annotations

import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache, Forward
from sis_core.step import Batch, Output


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

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self.inner.new_cache(kv_type, max_tokens)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return self.inner.cache_nbytes(kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        before = {sequence: cache.length(sequence) for sequence in set(batch.sequences.tolist())}
        wanted = set(batch.outputs.tolist())
        found: dict[int, F32] = {}
        width = 0
        degraded = False
        try:
            for row in range(batch.n):
                output = self.inner.step(_one_row(batch, row, row in wanted), cache)
                degraded |= output.degraded
                width = output.values.shape[1]
                if row in wanted:
                    found[row] = output.values[0]
        except BaseException:
            for sequence, n in before.items():
                cache.truncate(sequence, min(n, cache.length(sequence)))
            raise
        rows = [found[row] for row in batch.outputs.tolist()]
        return Output(np.stack(rows) if rows else np.empty((0, width), np.float32), degraded)


def _one_row(batch: Batch, row: int, wanted: bool) -> Batch:
    part = slice(row, row + 1)
    return evolve(
        batch,
        tokens=None if batch.tokens is None else batch.tokens[part],
        hidden=None if batch.hidden is None else batch.hidden[part],
        positions=batch.positions[part],
        sequences=batch.sequences[part],
        outputs=[0] if wanted else [],
    )
