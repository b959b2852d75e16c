"""A look at what was written: some rows of a tensor, decoded and held against those that they were made of."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.guarded import REPORT, unpacked
from sis_core.quant import QuantFormat, Weight, usual_error
from sis_core.unpacked import not_finite
from sis_core.workbench.quantizer.plain_rounding import rounding_error

SAMPLE = 16  # rows
SLACK = 8.0  # real weights have outliers: they may come back so many times worse than normal values do
PLAIN = 1.75  # times what rounding to its own numbers loses: formats reach 1.2, with scales of powers of two up to 1.5;
# an encoder that cuts in place of rounding, or leaves a bit unused, from 1.9 on
ROUGH = 3.0  # times what two bits fewer could reach, where a format does not say what its numbers are
LEAST = 2.0**-8  # errors below this one are as good as none
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
    normal, plain = _on_normal_values(format, wanted)
    if not error <= min(LOST, SLACK * normal):  # NaN is none either
        usual = f"where {format.name} keeps normal values within {normal:.2g}"
        if not normal <= LOST:
            usual = f"and {format.name} does not keep normal values either"
        if format.layout is not None and (fault := not_finite(unpacked(format, written, weight.n_cols))):
            usual += f"; by its layout {fault}, of these rows"
        raise FormatError(
            f"what was written is not what was encoded: rows that were read back are off by {error:.2g} of their size, "
            f"{usual}",
            where=f"tensor {weight.name}",
            fix=f"{REPORT}; --tensor '{weight.name}=keep' leaves the tensor as it is",
        )
    least = usual_error(format.bits_per_weight)
    if plain is not None and normal > PLAIN * plain:
        rather = f"where rounding to the numbers that its codes stand for keeps them within {plain:.2g}"
    elif normal > ROUGH * least:
        rather = f"where {format.bits_per_weight:.3g} bits should within {least:.2g}"
    else:
        return ""
    return (
        f"{format.name} keeps normal values within {normal:.2g} of their size, {rather}: check it with "
        "sis_core.testing.check_quant_format"
    )


def _read(out: BinaryIO, start: int, n: int) -> U8:
    out.seek(start)
    return np.frombuffer(out.read(n), np.uint8)


def _on_normal_values(format: QuantFormat, like: F32) -> tuple[float, float | None]:
    """The error of the format on rows of normal values as large as those of ``like``, and that of plain rounding.

    The second is None where the format has no layout, and so does not say what it rounds to, or scales that are none.
    """
    size = np.sqrt((like.astype(np.float64) ** 2).mean())
    values = (np.random.Generator(np.random.Philox(5)).standard_normal(like.shape) * size).astype(np.float32)
    n_cols, rows = values.shape[1], format.quantize(values)
    error = max(_relative(format.dequantize(rows, n_cols), values, np.ones_like(values)), LEAST)
    if format.layout is None or not_finite(numbers := unpacked(format, rows, n_cols)):
        return error, None
    return error, max(rounding_error(format.layout, numbers, values), LEAST)


def _relative(found: F32, wanted: F32, importance: F32) -> float:
    """Root mean square of the error over that of the values."""
    with np.errstate(all="ignore"):
        lost = (importance * (found.astype(np.float64) - wanted) ** 2).sum()
    whole = (importance * wanted.astype(np.float64) ** 2).sum()
    return float(np.sqrt(lost / whole)) if whole > 0 else 0.0
