"""2:4 sparsity: of every four values the two largest are kept, in 4 bits, with their places.

Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3.
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat


class TwoOfFour(BlockFormat):
    """Blocks of 32: a scale in half precision, 16 numbers from -7 to 7 in 4 bits, and their 16 places in 2 bits."""

    name, block_size, type_size = "TWO_OF_FOUR", 32, 14
    layout = Layout(4, 32, Scale("f16"), zero=8, two_of_four=True)

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = np.minimum(np.abs(values).max(1, keepdims=True) / np.float32(7), 65504).astype("<f2")
        steps = values / np.where(scales > 0, scales, 1).astype(np.float32)
        fours = np.clip(np.rint(steps), -7, 7).reshape(len(values), 8, 4)
        places = np.sort(np.argsort(-np.abs(values).reshape(fours.shape), axis=2, kind="stable")[:, :, :2], axis=2)
        kept = (np.take_along_axis(fours, places, axis=2) + 8).astype(np.uint8)  # (n, 8, 2)
        pairs = (places[:, :, 0] | places[:, :, 1] << 2).astype(np.uint8)  # (n, 8): 4 bits
        packed = kept[:, :, 0] | kept[:, :, 1] << 4, pairs[:, ::2] | pairs[:, 1::2] << 4
        return np.hstack([scales.view(np.uint8), *packed])

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        blocks = rows.reshape(-1, 14)
        kept = np.stack([blocks[:, 2:10] & 15, blocks[:, 2:10] >> 4], axis=2)  # (n, 8, 2)
        pairs = np.stack([blocks[:, 10:] & 15, blocks[:, 10:] >> 4], axis=2).reshape(-1, 8)
        codes = np.full((len(blocks), 8, 4), 8, np.uint8)  # zeros
        np.put_along_axis(codes, np.stack([pairs & 3, pairs >> 2], axis=2).astype(np.intp), kept, axis=2)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        return Unpacked(codes.reshape(len(rows), n_cols), scales.reshape(len(rows), -1))


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [TwoOfFour()]
