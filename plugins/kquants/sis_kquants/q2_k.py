"""The decoder of Q2_K: ``x = d * scale * q - dmin * min`` with 4-bit scales and mins. Source: ggml's ``block_q2_K``."""

from __future__ import annotations

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat
from sis_kquants.bits import cut, half, product, scaled, spread


class Q2_K(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """84 bytes a block: 16 bytes of scales (low) and mins (high), 64 of 2-bit values, ``d``, ``dmin``."""

    name, type_id, block_size, type_size = "Q2_K", 10, 256, 84

    def dequantize_blocks(self, blocks: U8) -> F32:
        both = blocks[:, :16]
        scales, mins = product(half(blocks, 80), both & 15), product(half(blocks, 82), both >> 4)
        return scaled(spread(cut(blocks, 16, 80), 32, 2), scales, mins)
