"""What the five formats share: super-blocks of 256 values, encoded some at a time, with weights for the columns."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat
from sis_kquants.columns import CHUNK

LEAST_WEIGHT = 1e-4  # of the mean: columns without importance are still worth a sensible value


class KQuant(BlockFormat):
    """A format with super-blocks of 256 values."""

    block_size = 256

    @abstractmethod
    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        """Encode float32 ``(n, 256)``; ``weights``, of the same shape, say how much each error counts."""

    def quantize_blocks(self, values: F32) -> U8:
        return self._in_chunks(values, None)

    def quantize_weighted(self, values: F32, importance: F32) -> U8:
        self.check_values(values)
        n_rows, n_cols = values.shape
        scale = importance.mean(dtype=np.float64)
        weights = np.maximum(importance / scale, LEAST_WEIGHT) if scale > 0 else np.ones(n_cols)
        weights = weights.astype(np.float32).reshape(-1, self.block_size)  # (blocks in a row, 256)
        return self._in_chunks(values.reshape(-1, self.block_size), weights).reshape(n_rows, self.row_bytes(n_cols))

    def _in_chunks(self, blocks: F32, weights: F32 | None) -> U8:
        out = np.empty((len(blocks), self.type_size), np.uint8)
        for start in range(0, len(blocks), CHUNK):
            some = blocks[start : start + CHUNK]
            chosen = None if weights is None else weights[np.arange(start, start + len(some)) % len(weights)]
            # Values that overflow on the way, or are not finite, end as infinite factors: `sis quantize` refuses.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                out[start : start + len(some)] = self.encode(some, chosen)
        return out
