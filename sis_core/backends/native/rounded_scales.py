"""What scales lose where tiles keep them as halves or as bfloats.

Halves keep 11 digits of numbers in their range, bfloats 8 of any. Which of the two holds a weight's scales better is in
the scales: powers of two, and numbers in bfloat16, are exact as halves wherever those have their range.
"""

from __future__ import annotations

import numpy as np

from sis_core import quant
from sis_core.arrays import F32, Ids
from sis_core.backends.native import abi
from sis_core.backends.native.some_rows import SomeRows
from sis_core.layout import Layout
from sis_core.unpacked import Unpacked

HALF, BFLOAT = abi.SCALES["half"], abi.SCALES["bfloat"]
MOST_LOST = 2.0**-11  # what halves lose of a number in their range
F16, BF16 = quant.F16Format(), quant.BF16Format()


def lost(scales: F32, kept: int) -> float:
    """What a row loses of its scales ``(n_rows, k)``, root mean square as a part of theirs: the worst row's.

    Args:
        kept: `HALF` or `BFLOAT`. Infinity for a number that is too large for it.
    """
    with np.errstate(over="ignore"):
        codec = F16 if kept == HALF else BF16
        error = codec.dequantize_blocks(codec.quantize_blocks(scales)) - scales
    if not error.any():
        return 0.0
    squares = [(some.astype(np.float64) ** 2).sum(axis=1) for some in (error, scales)]
    return float(np.sqrt(squares[0] / np.maximum(squares[1], 1e-300)).max())


def need_bfloat(scales: F32) -> bool:
    """Whether halves lose more of them than of numbers in their range, and bfloats less."""
    of_halves = lost(scales, HALF)
    return of_halves > MOST_LOST and lost(scales, BFLOAT) <= of_halves


def scales_of(layout: Layout, found: Unpacked, factor: F32) -> F32:
    """Both levels of scales, times ``factor`` ``(n_rows, 1)``: ``(n_rows, k)``.

    A group of zeros may have any scale, such as the smallest that there is: where halves would lose that, it is zero.
    """
    scales = np.asarray(found.combined_scales() * factor, np.float32)
    if lost(scales, HALF) <= MOST_LOST or found.minima is not None or layout.code_values is None:
        return scales
    values = layout.code_values[found.codes].reshape(*scales.shape, -1)
    return np.where(values.any(axis=2), scales, np.float32(0))


def scales_of_some(weight: quant.Weight) -> F32 | None:
    """`scales_of` some rows of a weight, with its sides and the step of its table; None where they are not known."""
    layout, some = weight.format.layout, SomeRows.of(weight)
    if layout is None or some is None:
        return None
    step = 1.0 if layout.byte_table is None else layout.byte_table.step
    return scales_of(layout, some.unpacked, factor_of(weight, some.numbers) * np.float32(step))


def factor_of(weight: quant.Weight, rows: slice | Ids) -> F32:
    """What rows are multiplied by, of the weight's sides but those of columns: ``(n_rows, 1)`` or ``(1, 1)``."""
    factor = np.ones((1, 1), np.float32)
    for side in weight.side.values():
        if side.axis != "column":
            factor = factor * side.of_rows(rows, weight.n_rows)
    return factor
