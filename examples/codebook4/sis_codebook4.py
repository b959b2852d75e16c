"""Every row has a codebook of its own: 16 values found by k-means, in units of the row's scale.

Source: Kim et al. 2023, "SqueezeLLM: Dense-and-Sparse Quantization", section 4.1, without its weighting by sensitivity.
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat

HEADER, ROUNDS = 2 + 16, 8


class Codebook4(QuantFormat):
    """A row is a half-precision scale, 16 signed bytes, and 4 bits a value: not blocks, so it says how long it is."""

    name, block_size, bits_per_weight = "CODEBOOK4", 32, 4 + 8 * HEADER / 2048  # for rows of 2048 values
    layout = Layout(4, 32, Scale("f16", per="row"), table="row")

    def row_bytes(self, n_cols: int) -> int:
        return HEADER + super().row_bytes(n_cols) * self.block_size // 2

    def quantize(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = np.minimum(np.abs(values).max(axis=1, keepdims=True) / np.float32(127), 65504).astype("<f2")  # (n, 1)
        x = values / np.where(scales > 0, scales, 1).astype(np.float32)
        book = np.clip(np.rint([codebook(row) for row in x]), -127, 127).astype(np.int8)  # (n, 16)
        codes = sum(x > border[:, None] for border in borders(book.astype(np.float32)).T).astype(np.uint8)
        return np.hstack([scales.view(np.uint8), book.view(np.uint8), codes[:, ::2] | codes[:, 1::2] << 4])

    def unpack(self, rows: U8, n_cols: int) -> Unpacked:
        self.check_rows(rows, n_cols)
        codes = np.stack([rows[:, HEADER:] & 15, rows[:, HEADER:] >> 4], axis=2).reshape(len(rows), n_cols)
        scales, book = rows[:, :2].copy().view("<f2"), rows[:, 2:HEADER].astype(np.int8)  # (n, 1), (n, 16)
        return Unpacked(codes, scales.astype(np.float32), tables=book.astype(np.float32))


def codebook(row: F32) -> F32:
    """The row's 16 centres, in order: Lloyd's algorithm from quantiles of its different values."""
    centres = np.quantile(np.unique(row), np.linspace(0, 1, 16), method="nearest")
    for _ in range(ROUNDS):
        nearest = np.searchsorted(borders(centres), row)
        counts, sums = np.bincount(nearest, minlength=16), np.bincount(nearest, row, minlength=16)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres).astype(np.float32)
    return np.sort(centres)


def borders(centres: F32) -> F32:
    return (centres[..., 1:] + centres[..., :-1]) / 2


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Codebook4()]
