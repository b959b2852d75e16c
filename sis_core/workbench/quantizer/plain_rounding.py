"""What a format would lose if its encoder did nothing but round: the yardstick for what it does lose."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, F64
from sis_core.layout import Layout, Scale, Unpacked


def rounding_error(layout: Layout, written: Unpacked, values: F32) -> float:
    """The error of ``values`` ``(n_rows, n_cols)`` that are rounded to the nearest of a layout's own numbers.

    The scale of a group takes its largest magnitude, or its range where a layout has minima, to the last code. How
    many values share one is seen in what was written of them. A table for each row is taken for equal steps.

    Returns:
        Root mean square, relative to that of the values.
    """
    wanted = values.astype(np.float64)
    groups = wanted.reshape(-1, _group(written, values.shape[1]))
    kept = _two_of_four(groups) if layout.two_of_four else groups
    own = layout.code_values
    levels = np.linspace(-1, 1, 1 << layout.bits) if own is None else np.sort(own)
    if layout.minimum is None and not isinstance(layout.zero, Scale):
        reach, low = _reach(levels), 0.0
        scales = np.abs(kept).max(axis=1, keepdims=True) / reach
    else:
        least, most = np.minimum(kept.min(1, keepdims=True), 0), np.maximum(kept.max(1, keepdims=True), 0)
        scales = (most - least) / max(levels[-1] - levels[0], 1e-30)
        low = least - levels[0] * scales
    scales = np.where(scales > 0, scales, 1)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, (kept - low) / scales)
    lost = ((levels[nearest] * scales + low - groups) ** 2).sum()
    whole = (groups**2).sum()
    return float(np.sqrt(lost / whole)) if whole > 0 else 0.0


def _reach(levels: F64) -> float:
    """The magnitude that levels hold in both signs, or in the one that they have."""
    both = min(-levels[0], levels[-1])
    return float(both if both > 0 else np.abs(levels).max())


def _two_of_four(groups: F64) -> F64:
    fours = groups.reshape(-1, 4)
    order = np.abs(fours).argsort(axis=1).argsort(axis=1)
    return np.where(order < 2, 0, fours).reshape(groups.shape)


def _group(written: Unpacked, n_cols: int) -> int:
    """How many neighbours share scales: more than their shape says where these are repeated."""
    scales = written.combined_scales()
    n_rows, k = scales.shape
    repeated = [n for n in range(1, k + 1) if k % n == 0 and (np.ptp(scales.reshape(n_rows, -1, n), axis=2) == 0).all()]
    return int(n_cols // k * max(repeated))
