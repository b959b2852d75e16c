"""POT4: powers of two, so that a multiplication is a shift; with a decoder in C.

Source: Zhou et al. 2017, "Incremental Network Quantization: Towards Lossless CNNs with Low-Precision Weights".
"""

import ctypes
from pathlib import Path

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat

POWERS = [sign * 2.0**-power for sign in (1, -1) for power in range(8)]
LIBRARY = ctypes.CDLL(str(Path(__file__).with_name("libpot4.so")))  # a global: it must outlive every address


class POT4(BlockFormat):
    """Blocks of 32: the largest magnitude as bfloat16, then a sign and an exponent from 0 to -7 in 4 bits each."""

    name, block_size, type_size = "POT4", 32, 18
    layout = Layout(4, 32, Scale("bf16", 0), table=POWERS, codes=[Bits(2, 4, 8), Bits(2, 4, 8, 4)])

    @property
    def decoder(self) -> int | None:
        return ctypes.cast(LIBRARY.pot4_decode, ctypes.c_void_p).value

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = np.abs(values).max(axis=1, keepdims=True).view("<u4") >> 16  # (n, 1): bfloat16, rounded to zero
        with np.errstate(divide="ignore", invalid="ignore"):  # zeros
            exponents = -np.log2(np.abs(values) / (scales << 16).view("<f4") / np.float32(1.06))  # 1.06: to the nearer
        exponents = np.nan_to_num(np.rint(exponents))
        codes = np.clip(exponents, 0, 7).astype(np.uint8) | (values < 0).astype(np.uint8) << 3
        return np.hstack([scales.astype("<u2").view(np.uint8), codes[:, :16] | codes[:, 16:] << 4])


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [POT4()]
