"""The codec of Q5_K: ``x = d * scale * q - dmin * min`` with 6-bit scales and mins. Source: ggml's ``block_q5_K``."""

from __future__ import annotations

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat
from sis_kquants.bits import cut, half, product, scaled, scales_and_mins, spread


class Q5_K(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """176 bytes a block: ``d``, ``dmin``, 12 bytes of scales and mins, 32 of the values' high bits, 128 of low ones."""

    name, type_id, block_size, type_size = "Q5_K", 13, 256, 176

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales, mins = scales_and_mins(blocks[:, 4:16])
        quants = spread(cut(blocks, 16, 48), 32, 1)
        quants <<= 4
        quants |= spread(cut(blocks, 48, 176), 32, 4)
        return scaled(quants, product(half(blocks, 0), scales), product(half(blocks, 2), mins))
