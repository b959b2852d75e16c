"""AWQ: 4 bits in groups of 128 with a zero point, and columns that matter much made larger before they are rounded.

Source: Lin et al. 2023, "AWQ: Activation-aware Weight Quantization", section 3.2.
"""

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.layout import Bits, Layout, Scale
from sis_core.quant import BlockFormat, QuantFormat, Weight
from sis_core.sides import SideName
from sis_core.transform import PerColumn


class AWQ(BlockFormat):
    """Groups of 128: a scale in half precision, a zero point of 8 bits, then 4 bits a value: ``scale * (code - zero)``.

    What columns were divided by lies in a tensor beside the weight; where a file has none, it is in what comes before.
    """

    name, block_size, type_size = "AWQ", 128, 67
    layout = Layout(
        4, 128, Scale("f16", 0), zero=Scale("uint", Bits(2, 8)), codes=Bits(3, 4), transform=PerColumn("columns")
    )

    def side_names(self, tensor: str) -> dict[str, SideName]:
        return {"columns": SideName(tensor.removesuffix(".weight") + ".awq_scale", "column")}

    def make_sides(self, weight: Weight, importance: F32 | None) -> dict[str, F32]:
        if importance is None or len(weight.shape) != 2:
            return {}
        squares = np.maximum(importance[0], 1e-4 * importance.mean()) + np.float32(1e-30)
        rows = weight.take(np.arange(0, weight.n_rows, 8))

        def lost(columns: F32) -> float:
            kept = self.dequantize(self.quantize(rows / columns), weight.n_cols) * columns
            return float((squares * (kept - rows) ** 2).sum())

        return {"columns": min((squares ** np.float32(-i / 20) for i in range(11)), key=lost)}

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        low, high = np.minimum(values.min(1, keepdims=True), 0), np.maximum(values.max(1, keepdims=True), 0)
        scales = np.clip(high / 15 - low / 15, 2.0**-24, 65504).astype("<f2")  # (n, 1)
        zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 0, 15)
        codes = np.clip(np.rint(values / scales.astype(np.float32) + zeros), 0, 15).astype(np.uint8)
        packed = codes[:, ::2] | codes[:, 1::2] << 4
        return np.hstack([scales.view(np.uint8), zeros.astype(np.uint8), packed])


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [AWQ()]
