"""The codec of Q4_0: ``x = d * (q - 8)``, where ``-8 * d`` is the value of largest magnitude in the block.

Source: ggml's ``block_q4_0`` and ``quantize_row_q4_0_ref``.
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat


class Q4_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """18 bytes a block: ``d`` as binary16, then 16 bytes: low nibbles are values 0 to 15, high ones 16 to 31."""

    name, type_id, block_size, type_size = "Q4_0", 2, 32, 18
    layout = Layout(4, 32, Scale("f16", 0), zero=8, codes=[Bits(2, 4, 8), Bits(2, 4, 8, 4)])

    def dequantize_blocks(self, blocks: U8) -> F32:
        halves = blocks.view("<u2")  # (n, 9)
        scales = halves[:, :1].view("<f2").astype(np.float32)  # (n, 1)
        packed = np.ascontiguousarray(halves[:, 1:]).view(np.uint8)  # (n, 16)
        quants = np.empty((len(blocks), 32), np.int8)
        words = quants.view(np.complex128)  # (n, 2): 16 bytes moved at once are twice as fast as one by one
        words[:, :1] = (packed & 15).view(np.complex128)
        words[:, 1:] = (packed >> 4).view(np.complex128)
        quants -= 8
        values = quants.astype(np.float32)
        values *= scales
        return values

    def quantize_blocks(self, values: F32) -> U8:
        largest = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
        scales = largest / np.float32(-8)  # (n, 1)
        stored = scales.astype("<f2")
        with np.errstate(divide="ignore"):
            inverse = np.where(scales == 0, np.float32(0), 1 / scales)
        quants = np.minimum(values * inverse + np.float32(8.5), 15)
        # Converting NaN to an integer is undefined; a scale whose inverse overflows is stored as zero anyway.
        quants = np.where(np.isfinite(inverse) & np.isfinite(quants), quants, 0).astype(np.uint8)
        return np.concatenate([stored.view(np.uint8), quants[:, :16] | quants[:, 16:] << 4], axis=1)
