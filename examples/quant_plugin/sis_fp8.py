"""FP8_E4M3: 64 values as 8-bit floats and one scale (Micikevicius et al. 2022, "FP8 Formats for Deep Learning")."""

import numpy as np

from sis_core import hookimpl
from sis_core.quant import BlockFormat

E, M = np.divmod(np.arange(128), 8)  # 4 bits of exponent, 3 of mantissa; 127 is NaN
LEVELS = np.where(E == 0, np.ldexp(M / 8, -6), np.ldexp(1 + M / 8, E - 7))[:127].astype(np.float32)  # 0 ... 448
TABLE = np.concatenate([LEVELS, [np.nan], -LEVELS, [np.nan]]).astype(np.float32)  # by byte: the sign is the top bit


class FP8(BlockFormat):
    name, block_size, type_size = "FP8_E4M3", 64, 66

    def dequantize_blocks(self, blocks):
        return TABLE[blocks[:, 2:]] * blocks[:, :2].copy().view("<f2").astype(np.float32)

    def quantize_blocks(self, values):
        scales = (np.abs(values).max(axis=1, keepdims=True) / LEVELS[-1]).astype("<f2")
        with np.errstate(divide="ignore"):  # by the scale of zeros
            codes = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, np.abs(values / scales.astype(np.float32)))
        return np.hstack([scales.view(np.uint8), codes.astype(np.uint8) | np.signbit(values) << np.uint8(7)])


@hookimpl
def sis_register_quant_formats():
    return [FP8()]
