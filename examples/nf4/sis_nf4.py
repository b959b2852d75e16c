"""NF4: the 16 levels are quantiles of a normal distribution, so that each is used about equally often.

Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3 and appendix E.
"""

from statistics import NormalDist

import numpy as np

from sis_core import hookimpl
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat

END = (1 / 32 + 1 / 30) / 2  # the outermost quantile: 7 levels lie below zero, 8 above it
BELOW, ABOVE = ([NormalDist().inv_cdf(p) for p in np.linspace(END, 0.5, n, endpoint=False)] for n in (7, 8))
LEVELS = (np.array([*BELOW, 0, *np.negative(ABOVE[::-1])]) / -BELOW[0]).astype(np.float32)  # (16,), from -1 to 1
BORDERS = (LEVELS[1:] + LEVELS[:-1]) / 2


class NF4(BlockFormat):
    """Blocks of 64 values: their largest magnitude in half precision, then 4 bits each."""

    name, block_size, type_size = "NF4", 64, 34
    layout = Layout(4, 64, Scale("f16", 0), table=LEVELS, codes=Bits(2, 4))  # bits, group

    def quantize_blocks(self, values):
        self.check_values(values, finite=True)
        scales = np.minimum(np.abs(values).max(axis=1, keepdims=True), np.float32(65504)).astype("<f2")  # (n, 1)
        codes = np.searchsorted(BORDERS, values / np.where(scales > 0, scales, 1).astype(np.float32)).astype(np.uint8)
        return np.hstack([scales.view(np.uint8), codes[:, ::2] | codes[:, 1::2] << 4])


@hookimpl
def sis_register_quant_formats():
    return [NF4()]
