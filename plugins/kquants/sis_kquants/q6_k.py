"""The codec of Q6_K: ``x = d * scale * (q - 32)`` with signed 8-bit scales. Source: ggml's ``block_q6_K``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_kquants import symmetric
from sis_kquants.bits import cut, half, product, scaled, spread
from sis_kquants.columns import pack
from sis_kquants.kquant import KQuant


class Q6_K(KQuant):  # noqa: N801 - GGUF's own spelling
    """210 bytes a block: 128 of the values' low nibbles in runs of 64, 64 of their high two bits, 16 scales, ``d``."""

    name, type_id, type_size = "Q6_K", 14, 210
    layout = Layout(
        6, 16,
        Scale("int", Bits(192, 8), times=Scale("f16", 208, per=256)),
        zero=32,
        codes=[
            Bits(i // 4 * 64 + i % 2 * 32, 4, 8, i // 2 % 2 * 4, Bits(128 + i // 4 * 32, 2, 8, i % 4 * 2))
            for i in range(8)
        ],
    )  # fmt: skip

    def dequantize_blocks(self, blocks: U8) -> F32:
        quants = spread(cut(blocks, 128, 192), 32, 2)
        quants <<= 4
        quants |= spread(cut(blocks, 0, 128), 64, 4)
        quants -= 32
        return scaled(quants.view(np.int8), product(half(blocks, 208), blocks[:, 192:208].view(np.int8)))

    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        found = symmetric.fit(blocks, weights, n_sub=16, q_min=-32, s_min=-128)
        quants = found.quants.view(np.uint8) + np.uint8(32)
        low, high = pack(quants & 15, 64, 4), pack(quants >> 4, 32, 2)
        return np.concatenate([low, high, found.scales.view(np.uint8), found.d.view(np.uint8)], axis=1)
