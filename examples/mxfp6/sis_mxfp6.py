"""MXFP6 (E2M3): 6-bit floats of two exponent and three fraction bits, with a power of two for every 32.

Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5.3.2 and 6.3.
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat

SIZES = [m / 8 if e == 0 else (1 + m / 8) * 2 ** (e - 1) for e in range(4) for m in range(8)]  # 0 to 7.5
BORDERS = np.add(SIZES[1:], SIZES[:-1]).astype(np.float32) / 2


class MXFP6(BlockFormat):
    """Blocks of 32: the scale as an exponent alone, then 6 bits a value, the sign on top."""

    name, block_size, type_size = "MXFP6_E2M3", 32, 25
    layout = Layout(6, 32, Scale("e8m0", 0), table=[*SIZES, *np.negative(SIZES)], codes=Bits(1, 6))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        largest = np.maximum(np.abs(values).max(axis=1, keepdims=True), np.float32(2.0**-120))  # (n, 1)
        exponents = np.frexp(largest)[1] - 3  # the largest magnitude is 4 to 8 steps then
        sizes = np.searchsorted(BORDERS, np.ldexp(np.abs(values), -exponents)).astype(np.uint8)
        codes = sizes | np.signbit(values).astype(np.uint8) << 5
        digits = np.unpackbits(codes[:, :, None], axis=2, count=6, bitorder="little").reshape(len(values), -1)
        return np.hstack([(exponents + 127).astype(np.uint8), np.packbits(digits, axis=1, bitorder="little")])


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [MXFP6()]
