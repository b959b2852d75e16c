"""The codec of Q4_K: ``x = d * scale * q - dmin * min`` with 6-bit scales and mins. Source: ggml's ``block_q4_K``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_kquants import affine
from sis_kquants.bits import cut, half, pack_scales_and_mins, product, scaled, scales_and_mins, spread
from sis_kquants.columns import pack
from sis_kquants.kquant import KQuant


class Q4_K(KQuant):  # noqa: N801 - GGUF's own spelling
    """144 bytes a block: ``d``, ``dmin``, 12 bytes of scales and mins, 128 of values in runs of 32."""

    name, type_id, type_size = "Q4_K", 12, 144

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales, mins = scales_and_mins(blocks[:, 4:16])
        quants = spread(cut(blocks, 16, 144), 32, 4)
        return scaled(quants, product(half(blocks, 0), scales), product(half(blocks, 2), mins))

    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        found = affine.fit(blocks, weights, n_sub=8, q_max=15, s_max=63)
        factors = np.stack([found.d, found.dmin], axis=1).view(np.uint8)
        scales = pack_scales_and_mins(found.scales, found.mins)
        return np.concatenate([factors, scales, pack(found.quants, 32, 4)], axis=1)
