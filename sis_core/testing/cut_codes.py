"""Codes that are cut in place of being rounded, seen in which neighbour of a value its code stands for."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.guarded import unpacked
from sis_core.quant import QuantFormat
from sis_core.testing.reading import for_each_value

SHARE = 0.97  # of the values: some lie on a level, or beyond it by the rounding of a scale
SLACK = 0.02  # of the gap to the next level
SEEN = 100  # values, at least


def cut_codes(format: QuantFormat, rows: U8, values: F32) -> str:
    """Whether ``rows`` hold the level on one side of each of ``values`` and not the nearest, in words; else empty.

    Nothing is said of layouts with a transform, with a table for each row, or that drop weights.
    """
    layout = format.layout
    levels = layout.code_values if layout else None
    if layout is None or levels is None or layout.transform is not None or layout.two_of_four or layout.bits < 2:
        return ""
    numbers = unpacked(format, rows, values.shape[1])
    scales, minima = numbers.combined_scales(), numbers.combined_minima()
    with np.errstate(all="ignore"):
        above_minima = values if minima is None else values - for_each_value(minima, values.shape[1])
        units = above_minima / for_each_value(scales, values.shape[1])
    order = np.argsort(levels, kind="stable")
    levels = levels[order]
    place = np.argsort(order)[numbers.codes]  # of each code, in the order of the levels
    inner = np.isfinite(units) & (place > 0) & (place < len(levels) - 1)
    units, place = units[inner], place[inner]
    if units.size < SEEN:
        return ""
    rest, above, below = units - levels[place], levels[place + 1] - levels[place], levels[place] - levels[place - 1]
    up = (rest >= -SLACK * above) & (rest <= (1 + SLACK) * above)
    down = (rest <= SLACK * below) & (rest >= -(1 + SLACK) * below)
    how = (
        "it searches among levels, not among the middles between them" if layout.table else "it cuts, and never rounds"
    )
    for held, which in ((up, "lower one"), (down, "higher one"), (np.where(units >= 0, up, down), "one towards 0")):
        if held.mean() >= SHARE:
            return (
                f"its layout and its encoder differ: of what codes stand for the encoder writes the next {which}, not "
                f"the nearest: {how}"
            )
    return ""
