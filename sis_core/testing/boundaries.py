"""A wrong number in a table, found where one code ends and the next begins.

An encoder that rounds to the nearest level puts the boundary between two codes midway between their levels. So where a
layout's level is not the encoder's, both boundaries of that code lie elsewhere by half of that, however little it adds
to the error.
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, F64, U8
from sis_core.guarded import unpacked
from sis_core.layout import Layout
from sis_core.quant import QuantFormat
from sis_core.testing.reading import for_each_value

SEEN = 100  # times a code must be written before its smallest and largest value say something
SLACK = 0.008  # of the largest level: a scale is rounded after codes were chosen, and no value lies on a boundary
ALIKE = 0.5  # of a shift, that the other boundary of the same code may differ by


def moved_level(format: QuantFormat, rows: U8, values: F32) -> str:
    """The one code whose level the encoder that wrote ``rows`` of ``values`` does not share, in words; else empty.

    Nothing is said of layouts without a table, with scales of two levels or of integers, and of encoders that do not
    round to the nearest level.
    """
    layout = format.layout
    if layout is None or not _is_simple(layout) or not isinstance(layout.table, tuple):
        return ""
    numbers = unpacked(format, rows, values.shape[1])
    every = for_each_value(numbers.scales, values.shape[1])
    sound = np.isfinite(every) & (every != 0)
    codes, units = numbers.codes[sound], values[sound] / every[sound]
    own = np.asarray(layout.table, np.float64)
    if (np.bincount(codes, minlength=len(own)) < SEEN).any():
        return ""
    ends = np.array([[units[codes == code].min(), units[codes == code].max()] for code in range(len(own))])
    order = np.argsort(ends.mean(axis=1))
    slack = SLACK * np.abs(own).max()
    if (ends[order[:-1], 1] > ends[order[1:], 0] + slack).any():
        return ""  # it does not round to the nearest
    found = _moved(own[order], ends[order[:-1], 1], ends[order[1:], 0], slack)
    if found is None:
        return ""
    at, by = found
    code = int(order[at])
    differ = f"the code {code} stands for about {own[code] + by:.3g} times the scale, not {own[code]:.3g}"
    return f"its layout and its encoder differ: to the encoder {differ}, as the values show for which it is written"


def _is_simple(layout: Layout) -> bool:
    single = layout.scale.times is None and layout.scale.kind in ("f16", "bf16", "f32")
    return single and layout.minimum is None and layout.transform is None


def _moved(levels: F64, below: F64, above: F64, slack: float) -> tuple[int, float] | None:
    """Which of the levels, in order, is elsewhere, and by how much; boundaries lie between ``below`` and ``above``."""
    middles = (levels[:-1] + levels[1:]) / 2
    shifts = np.where(middles < below - slack, below - middles, np.where(middles > above + slack, above - middles, 0))
    moved = np.flatnonzero(shifts)
    if len(moved) == 1 and moved[0] in (0, len(shifts) - 1):
        return (0 if moved[0] == 0 else len(levels) - 1), 2 * float(shifts[moved[0]])
    if len(moved) == 2 and moved[1] == moved[0] + 1:
        first, second = shifts[moved]
        if abs(first - second) < ALIKE * max(abs(first), abs(second)):
            return int(moved[1]), float(first + second)
    return None
