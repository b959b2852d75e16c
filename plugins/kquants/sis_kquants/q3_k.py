"""The codec of Q3_K: ``x = d * (scale - 32) * (q - 4)`` with 6-bit scales. Source: ggml's ``block_q3_K``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_kquants import symmetric
from sis_kquants.bits import cut, half, product, scaled, spread
from sis_kquants.columns import pack
from sis_kquants.kquant import KQuant


class Q3_K(KQuant):  # noqa: N801 - GGUF's own spelling
    """110 bytes a block: 32 of the values' high bits, 64 of their low two bits, 12 of scales, ``d``."""

    name, type_id, type_size = "Q3_K", 11, 110
    layout = Layout(
        3, 16,
        Scale(
            "uint",
            [Bits(96 + i % 2 * 4, 4, 8, i // 2 * 4, Bits(104, 2, 8, i * 2)) for i in range(4)],
            less=32, times=Scale("f16", 108, per=256),
        ),
        zero=4,
        codes=[Bits(32 + i // 4 * 32, 2, 8, i % 4 * 2, Bits(0, 1, 8, i)) for i in range(8)],
    )  # fmt: skip

    def dequantize_blocks(self, blocks: U8) -> F32:
        quants = spread(cut(blocks, 32, 96), 32, 2)
        quants |= spread(cut(blocks, 0, 32), 32, 1) << 2
        quants -= 4
        scales = product(half(blocks, 108), _scales(blocks[:, 96:108]) - np.int8(32))
        return scaled(quants.view(np.int8), scales)

    def encode(self, blocks: F32, weights: F32 | None) -> U8:
        found = symmetric.fit(blocks, weights, n_sub=16, q_min=-4, s_min=-32)
        quants = found.quants.view(np.uint8) + np.uint8(4)
        scales = found.scales.view(np.uint8) + np.uint8(32)
        top = pack(scales >> 4, 4, 2)
        low = scales[:, :8] & 15 | scales[:, 8:] << 4
        high, rest = pack(quants >> 2, 32, 1), pack(quants & 3, 32, 2)
        return np.concatenate([high, rest, low, top, found.d.view(np.uint8)], axis=1)


def _scales(packed: U8) -> NDArray[np.int8]:
    """``(n, 12)`` to int8 ``(n, 16)``: low and high nibbles of 8 bytes; 4 bytes with the top two bits."""
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    top = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    scales: NDArray[np.int8] = (low | top << 4).view(np.int8)
    return scales
