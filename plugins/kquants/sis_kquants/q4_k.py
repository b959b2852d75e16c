"""The codec of Q4_K: ``x = d * scale * q - dmin * min`` with 6-bit scales and mins. Source: ggml's ``block_q4_K``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_kquants import affine
from sis_kquants.bits import MINS, SCALES, cut, half, pack_scales_and_mins, product, scaled, scales_and_mins, spread
from sis_kquants.columns import pack
from sis_kquants.kquant import KQuant


class Q4_K(KQuant):  # noqa: N801 - GGUF's own spelling
    """144 bytes a block: ``d``, ``dmin``, 12 bytes of scales and mins, 128 of values in runs of 32."""

    name, type_id, type_size = "Q4_K", 12, 144
    layout = Layout(
        4, 32,
        Scale("uint", SCALES, times=Scale("f16", 0, per=256)),
        Scale("uint", MINS, factor=-1, times=Scale("f16", 2, per=256)),
        codes=[Bits(16 + i // 2 * 32, 4, 8, i % 2 * 4) for i in range(8)],
    )  # fmt: skip

    def dequantize_blocks(self, blocks: U8) -> F32:
        scales, mins = scales_and_mins(blocks[:, 4:16])
        quants = spread(cut(blocks, 16, 144), 32, 4)
        return scaled(quants, product(half(blocks, 0), scales), product(half(blocks, 2), mins))

    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        found = affine.fit(blocks, weights, n_sub=8, q_max=15, s_max=63)
        factors = np.stack([found.d, found.dmin], axis=1).view(np.uint8)
        scales = pack_scales_and_mins(found.scales, found.mins)
        return np.concatenate([factors, scales, pack(found.quants, 32, 4)], axis=1)
