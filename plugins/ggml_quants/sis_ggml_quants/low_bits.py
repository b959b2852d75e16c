"""Q1_0 and Q2_0: 1 and 2 bits a weight, and a scale. Source: ggml's ``block_q1_0`` and ``block_q2_0``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat


class Q1_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """128 signs: each value is the scale or minus the scale."""

    name, type_id, block_size, type_size = "Q1_0", 41, 128, 18
    layout = Layout(1, 128, Scale("f16", 0), table=(-1, 1), codes=Bits(2, 1))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values)
        scales = np.abs(values).mean(axis=1, keepdims=True, dtype=np.float32).astype("<f2")
        return np.hstack([scales.view(np.uint8), np.packbits(values >= 0, axis=1, bitorder="little")])


class Q2_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """64 values: the scale times -1, 0, 1 or 2.

    Scales are fitted by least squares, which halves the error of ggml's encoder: that takes the largest magnitude and
    never writes the 2. Values that are -1, 0 and 1 times a scale are kept exactly by both.
    """

    name, type_id, block_size, type_size = "Q2_0", 42, 64, 18
    layout = Layout(2, 64, Scale("f16", 0), zero=1, codes=Bits(2, 2))

    def quantize_blocks(self, values: F32) -> U8:
        return _fitted(values, np.ones(64, np.float32))

    def quantize_weighted(self, values: F32, importance: F32) -> U8:
        self.check_values(values)
        blocks, n_rows = values.reshape(-1, 64), len(values)
        weights = np.broadcast_to(importance.reshape(1, -1, 64), (n_rows, len(blocks) // n_rows, 64)).reshape(-1, 64)
        with np.errstate(over="ignore", invalid="ignore"):
            return _fitted(blocks, np.where(weights.any(axis=1, keepdims=True), weights, 1)).reshape(n_rows, -1)


STARTS = (0.4, -0.4, 1.0, -1.0)  # of the largest magnitude; a negative scale puts the 2 on the other side
ROUNDS = 3


def _fitted(values: F32, weights: F32) -> U8:
    """Blocks ``(n, 64)`` with the scale of the least weighted square error among those that some rounds find."""
    best, scales = np.full((len(values), 1), -1, np.float32), np.zeros((len(values), 1), np.float32)
    weighted, largest = values * weights, np.abs(values).max(axis=1, keepdims=True)
    for start in STARTS:
        scale = largest * np.float32(start)
        for _ in range(ROUNDS):
            steps = _steps(values, scale)
            product, square = (weighted * steps).sum(1, keepdims=True), (weights * steps * steps).sum(1, keepdims=True)
            scale = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        better = product * scale > best  # what the error is less than the square of the values
        best, scales = np.where(better, product * scale, best), np.where(better, scale, scales)
    halves = scales.astype("<f2")
    codes = (_steps(values, halves.astype(np.float32)) + 1).astype(np.uint8)
    packed = codes[:, ::4] | codes[:, 1::4] << 2 | codes[:, 2::4] << 4 | codes[:, 3::4] << 6
    return np.hstack([halves.view(np.uint8), packed])


def _steps(values: F32, scale: F32) -> F32:
    """The nearest of -1, 0, 1 and 2 times the scale; 0 where that is 0."""
    steps = np.divide(values, scale, out=np.zeros_like(values), where=scale != 0)
    return np.asarray(np.clip(np.rint(np.nan_to_num(steps)), -1, 2), np.float32)
