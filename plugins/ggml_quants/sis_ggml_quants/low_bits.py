"""Q1_0 and Q2_0: 1 and 2 bits a weight, and a scale. Source: ggml's ``block_q1_0`` and ``block_q2_0``."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat


class Q1_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """128 signs: each value is the scale or minus the scale."""

    name, type_id, block_size, type_size = "Q1_0", 41, 128, 18
    layout = Layout(1, 128, Scale("f16", 0), table=(-1, 1), codes=Bits(2, 1))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values)
        scales = np.abs(values).mean(axis=1, keepdims=True, dtype=np.float32).astype("<f2")
        return np.hstack([scales.view(np.uint8), np.packbits(values >= 0, axis=1, bitorder="little")])


class Q2_0(BlockFormat):  # noqa: N801 - GGUF's own spelling
    """64 values: the scale times -1, 0, 1 or 2. The encoder is ggml's, which never writes the 2."""

    name, type_id, block_size, type_size = "Q2_0", 42, 64, 18
    layout = Layout(2, 64, Scale("f16", 0), zero=1, codes=Bits(2, 2))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values)
        largest = np.abs(values).max(axis=1, keepdims=True)
        steps = values * np.where(largest > 0, 1 / np.where(largest > 0, largest, 1), 0).astype(np.float32)
        codes = np.clip(np.nan_to_num(np.trunc(steps + np.copysign(np.float32(0.5), steps))) + 1, 0, 3).astype(np.uint8)
        fours = codes.reshape(len(values), 16, 4)
        packed = fours[:, :, 0] | fours[:, :, 1] << 2 | fours[:, :, 2] << 4 | fours[:, :, 3] << 6
        return np.hstack([largest.astype("<f2").view(np.uint8), packed])
