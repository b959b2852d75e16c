"""The codec of Q8_0: ``x = d * q`` with ``d`` the largest magnitude of the block over 127."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat


class Q8_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """34 bytes a block: ``d`` as binary16, then 32 signed bytes."""

    name, type_id, block_size, type_size = "Q8_0", 8, 32, 34

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (n, 1)
        return np.multiply(blocks[:, 2:].view(np.int8), scales, dtype=np.float32)

    def quantize_blocks(self, values: F32) -> U8:
        scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
        with np.errstate(divide="ignore", over="ignore"):  # a block of zeros, or a scale past binary16
            inverse = np.where(scales == 0, np.float32(0), 1 / scales)
            stored = scales.astype("<f2")
        scaled = values * inverse
        # Halves are rounded away from zero, as C's roundf does.
        magnitude = np.abs(scaled)
        whole = np.floor(magnitude)
        rounded = whole + np.floor(2 * (magnitude - whole))
        quants = np.copysign(rounded, scaled).astype(np.int8)
        return np.concatenate([stored.view(np.uint8), quants.view(np.uint8)], axis=1)
