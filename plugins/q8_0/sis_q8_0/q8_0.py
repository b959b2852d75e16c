"""The codec of Q8_0: ``x = d * q``, where ``127 * d`` is the largest magnitude in the block.

Source: ggml's ``block_q8_0`` and ``quantize_row_q8_0_ref``.
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat


class Q8_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """34 bytes a block: ``d`` as binary16, then 32 signed bytes."""

    name, type_id, block_size, type_size = "Q8_0", 8, 32, 34
    layout = Layout(8, 32, Scale("f16", 0), table=np.arange(256, dtype=np.uint8).view(np.int8), codes=Bits(2, 8))

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales = blocks.view("<u2")[:, :1].view("<f2").astype(np.float32)  # (n, 1)
        values = blocks[:, 2:].view(np.int8).astype(np.float32)  # (n, 32)
        values *= scales
        return values

    def quantize_blocks(self, values: F32) -> U8:
        scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)  # (n, 1)
        stored = scales.astype("<f2")
        with np.errstate(divide="ignore"):
            inverse = np.where(scales == 0, np.float32(0), 1 / scales)
        scaled = values * inverse
        # Halves are rounded away from zero, as C's roundf does.
        magnitude = np.abs(scaled)
        whole = np.floor(magnitude)
        whole += np.floor(2 * (magnitude - whole))
        rounded = np.copysign(whole, scaled)
        # Converting NaN to an integer is undefined; a scale whose inverse overflows is stored as zero anyway.
        quants = np.where(np.isfinite(rounded), rounded, 0).astype(np.int8)
        return np.concatenate([stored.view(np.uint8), quants.view(np.uint8)], axis=1)
