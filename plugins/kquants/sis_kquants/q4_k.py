"""The codec of Q4_K: ``x = d * scale * q - dmin * min`` with 6-bit scales and mins. Source: ggml's ``block_q4_K``."""

from __future__ import annotations

from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat
from sis_kquants.bits import cut, half, product, scaled, scales_and_mins, spread


class Q4_K(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """144 bytes a block: ``d``, ``dmin``, 12 bytes of scales and mins, 128 of values in runs of 32."""

    name, type_id, block_size, type_size = "Q4_K", 12, 256, 144

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales, mins = scales_and_mins(blocks[:, 4:16])
        quants = spread(cut(blocks, 16, 144), 32, 4)
        return scaled(quants, product(half(blocks, 0), scales), product(half(blocks, 2), mins))
