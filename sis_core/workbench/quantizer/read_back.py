"""A look at what was written: some rows of a tensor, decoded and held against those that they were made of."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.quant import REPORT, QuantFormat, Weight, usual_error

SAMPLE = 16  # rows
SLACK = 8.0  # real weights have outliers: they may come back so many times worse than normal values do
ROUGH = 3.0  # times what two bits fewer could reach: the kit asks authors from there on whether it is on purpose
LOST = 0.95  # of the size of the weights themselves: zeros would be as near


def check_read_back(
    out: BinaryIO, offset: int, weight: Weight, format: QuantFormat, importance: F32 | None = None
) -> str:
    """Hold rows from all over a tensor to what ``format`` makes of normal values of the same size.

    Args:
        out: the file, open for reading too; where it stands afterwards is not defined.
        offset: where the tensor begins in it.
        weight: what was encoded.
        importance: float32 ``(n_expert, n_cols)``, with which errors were weighed.

    Returns:
        A warning where the format keeps normal values worse than its bits let expect, or nothing.

    Raises:
        FormatError: the rows decode to something else than they should, or to no number.
    """
    rows = np.unique(np.linspace(0, weight.n_rows - 1, SAMPLE).astype(np.intp))
    row_bytes = format.row_bytes(weight.n_cols)
    written = np.stack([_read(out, offset + row * row_bytes, row_bytes) for row in rows.tolist()])
    wanted = weight.take(rows)
    found = Weight.of(weight.name, format, wanted.shape, lambda: written.reshape(-1)).dequantize()
    columns = np.ones_like(wanted)
    if importance is not None:
        columns = importance[rows * len(importance) // weight.n_rows]
        columns = np.where(columns.sum(axis=1, keepdims=True) > 0, columns, np.float32(1))
    error = _relative(found, wanted, columns)
    normal = _on_normal_values(format, wanted)
    if not error <= min(LOST, SLACK * normal):  # NaN is none either
        usual = f"where {format.name} keeps normal values within {normal:.2g}"
        if not normal <= LOST:
            usual = f"and {format.name} does not keep normal values either"
        raise FormatError(
            f"what was written is not what was encoded: rows that were read back are off by {error:.2g} of their size, "
            f"{usual}",
            where=f"tensor {weight.name}",
            fix=f"{REPORT}; --tensor '{weight.name}=keep' leaves the tensor as it is",
        )
    least = usual_error(format.bits_per_weight)
    if normal <= ROUGH * least:
        return ""
    return (
        f"{format.name} keeps normal values within {normal:.2g} of their size, where {format.bits_per_weight:.3g} bits "
        f"should within {least:.2g}: check it with sis_core.testing.check_quant_format"
    )


def _read(out: BinaryIO, start: int, n: int) -> U8:
    out.seek(start)
    return np.frombuffer(out.read(n), np.uint8)


def _on_normal_values(format: QuantFormat, like: F32) -> float:
    """The error of the format on rows of normal values as large as those of ``like``."""
    size = np.sqrt((like.astype(np.float64) ** 2).mean())
    values = (np.random.Generator(np.random.Philox(5)).standard_normal(like.shape) * size).astype(np.float32)
    found = format.dequantize(format.quantize(values), values.shape[1])
    return max(_relative(found, values, np.ones_like(values)), 2.0**-8)


def _relative(found: F32, wanted: F32, importance: F32) -> float:
    """Root mean square of the error over that of the values."""
    with np.errstate(all="ignore"):
        lost = (importance * (found.astype(np.float64) - wanted) ** 2).sum()
    whole = (importance * wanted.astype(np.float64) ** 2).sum()
    return float(np.sqrt(lost / whole)) if whole > 0 else 0.0
