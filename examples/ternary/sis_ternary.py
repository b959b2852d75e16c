"""1.58 bits: every weight is minus one, zero or one, times a scale of its row; five of them in a byte.

Source: Ma et al. 2024, "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", equation 1. The paper's one
scale for a matrix is one for each row here, and is fitted to the weights that did not become zero.
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat

POWERS = np.array([1, 3, 9, 27, 81], np.uint8)  # 3 ** 5 = 243 fits into a byte


class Ternary(QuantFormat):
    """A row is a half-precision scale and a byte for every 5 values, the last one filled up."""

    name, block_size = "TERNARY", 32
    layout = Layout(2, 32, Scale("f16", per="row"), zero=1, ternary=True)
    bits_per_weight = 8 / 5 + 16 / 2048  # for rows of 2048 values

    def row_bytes(self, n_cols: int) -> int:
        super().row_bytes(n_cols)  # refuses rows that are not a multiple of 32
        return 2 + -(-n_cols // 5)

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        sizes = np.abs(values)
        trits = np.sign(values) * (sizes > sizes.mean(1, keepdims=True, dtype=np.float64) / 2)  # (n, n_cols)
        scales = (sizes * np.abs(trits)).sum(1, dtype=np.float64) / np.maximum(np.abs(trits).sum(1), 1)
        padded = np.pad(trits.astype(np.int8) + 1, ((0, 0), (0, -values.shape[1] % 5))).astype(np.uint8)
        packed = (padded.reshape(len(values), -1, 5) * POWERS).sum(2, dtype=np.uint8)
        return np.hstack([np.minimum(scales, 65504).astype("<f2")[:, None].view(np.uint8), packed])

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        trits = (rows[:, 2:, None] // POWERS % 3).reshape(len(rows), -1)[:, :n_cols]
        return Unpacked(trits, rows[:, :2].copy().view("<f2").astype(np.float32))


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Ternary()]
