"""The codec of Q2_K: ``x = d * scale * q - dmin * min`` with 4-bit scales and mins. Source: ggml's ``block_q2_K``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_kquants import affine
from sis_kquants.bits import cut, half, product, scaled, spread
from sis_kquants.columns import pack
from sis_kquants.kquant import KQuant


class Q2_K(KQuant):  # noqa: N801 - GGUF's own spelling
    """84 bytes a block: 16 bytes of scales (low) and mins (high), 64 of 2-bit values, ``d``, ``dmin``."""

    name, type_id, type_size = "Q2_K", 10, 84
    layout = Layout(
        2, 16,
        Scale("uint", Bits(0, 4, 8), times=Scale("f16", 80, per=256)),
        Scale("uint", Bits(0, 4, 8, 4), factor=-1, times=Scale("f16", 82, per=256)),
        codes=[Bits(16 + i // 4 * 32, 2, 8, i % 4 * 2) for i in range(8)],
    )  # fmt: skip

    def dequantize_blocks(self, blocks: U8) -> F32:
        both = blocks[:, :16]
        scales, mins = product(half(blocks, 80), both & 15), product(half(blocks, 82), both >> 4)
        return scaled(spread(cut(blocks, 16, 80), 32, 2), scales, mins)

    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        found = affine.fit(blocks, weights, n_sub=16, q_max=3, s_max=15)
        factors = np.stack([found.d, found.dmin], axis=1).view(np.uint8)
        return np.concatenate([found.scales | found.mins << 4, pack(found.quants, 32, 2), factors], axis=1)
