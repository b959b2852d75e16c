"""Groups with a scale and a zero point; the zero point is found by half-quadratic splitting, which ignores outliers.

Source: Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models".
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat

ROUNDS, BETA, GROWTH, P = 20, np.float32(10), np.float32(1.01), np.float32(0.7)


class HQQ4(BlockFormat):
    """Groups of 64: scale and zero point in half precision, then 4 bits a value: ``scale * (number - zero)``."""

    name, block_size, type_size, bits = "HQQ4", 64, 36, 4
    layout = Layout(4, 64, Scale("f16", 0), zero=Scale("f16", 2), codes=Bits(4, 4))

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        low, high, top = values.min(1, keepdims=True), values.max(1, keepdims=True), 2**self.bits - 1
        floor = np.maximum(np.abs(values).max(1, keepdims=True) / 1024, 2.0**-24)  # so that the zero point fits
        scale = np.clip(high / top - low / top, floor, 65504).astype("<f2")  # (n, 1): a step
        x = values / scale.astype(np.float32)  # in steps
        zero, beta = -low / scale.astype(np.float32), BETA
        for _ in range(ROUNDS):
            numbers = np.clip(np.rint(x + zero), 0, top)
            error = x - (numbers - zero)
            size = np.maximum(np.abs(error), np.float32(1e-6))
            outlying = np.sign(error) * np.maximum(size - size ** (P - 1) / beta, 0)  # minimises |e|^p: equation 5
            zero, beta = (numbers - x + outlying).mean(1, keepdims=True, dtype=np.float32), beta * GROWTH
        zero = np.clip(zero, -65504, 65504).astype("<f2")
        numbers = np.clip(np.rint(x + zero.astype(np.float32)), 0, top).astype(np.uint8)
        digits = np.unpackbits(numbers[:, :, None], axis=2, count=self.bits, bitorder="little")
        packed = np.packbits(digits.reshape(len(x), -1), axis=1, bitorder="little")
        return np.hstack([scale.view(np.uint8), zero.view(np.uint8), packed])


class HQQ3(HQQ4):
    """The same in 3 bits."""

    name, type_size, bits = "HQQ3", 28, 3
    layout = Layout(3, 64, Scale("f16", 0), zero=Scale("f16", 2), codes=Bits(4, 3))


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [HQQ4(), HQQ3()]
