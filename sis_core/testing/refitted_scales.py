"""Codes that are right beside scales that are not: of how many values the encoder's scales are, and what they are.

Scales that are fitted explain more of anything than those that were read, so this is asked last.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sis_core.arrays import F32, F64, U8
from sis_core.guarded import unpacked
from sis_core.layout import Layout
from sis_core.quant import QuantFormat
from sis_core.testing.misplaced_codes import beyond
from sis_core.testing.reading import OFF, relative_error

FEWEST = 8  # values that share a scale, and perhaps a minimum: of fewer these two would explain noise
EXPLAINS = 0.5  # of the error, at most, is left
AS_GOOD, MISPLACED = 2.0, 0.03  # times as many codes as by the best scales are not the nearest, and of all so many
MOST = 0.25  # of all codes
SAME, APART = 0.1, 0.5  # scales are one unit's times one number, and units have very different ones


def scales_of_others(format: QuantFormat, rows: U8, values: F32) -> str:
    """Of how many values the encoder's scales are, and what they are, where its codes alone are right; else empty.

    Nothing is said of layouts with a transform, of one bit, or with a table for each row.

    Args:
        rows: what was written, ``(n_rows, row_bytes)``.
        values: what was given ``(n_rows, n_cols)``, every `FEWEST` of them of another size.
    """
    layout, n_cols = format.layout, values.shape[1]
    levels = layout.code_values if layout else None
    if layout is None or levels is None or layout.transform is not None or layout.two_of_four or layout.bits < 2:
        return ""
    numbers = unpacked(format, rows, n_cols)
    fits = {}
    for n in _sizes(format, layout, n_cols):
        scales, minima = _fit(levels[numbers.codes], values, n, numbers.minima is not None)
        with np.errstate(all="ignore"):
            steps = np.nan_to_num((values - minima) / scales, posinf=0, neginf=0)
        lost = relative_error(levels[numbers.codes] * scales + minima, values)
        fits[n] = float(beyond(levels, numbers.codes, steps).mean()), lost, scales[:, ::n]
    fewest = min(share for share, _, _ in fits.values())
    group = next(n for n, (share, _, _) in fits.items() if share <= AS_GOOD * fewest + MISPLACED)
    share, lost, scales = fits[group]
    if share > MOST or not lost < EXPLAINS * relative_error(layout.values(numbers), values):
        return ""
    own = _shared(numbers.combined_scales())
    said = n_cols // own.shape[1]
    if group != said:
        words = f"{_counted(group, n_cols)} a scale to the encoder, {_counted(said, n_cols)} one to the layout"
        return f"its layout and its encoder differ: {words}"
    return f"its layout and its encoder differ: {_otherwise(format, own, scales, n_cols)}"


def _sizes(format: QuantFormat, layout: Layout, n_cols: int) -> list[int]:
    """Of how many values a scale may be, from the most on."""
    sizes = {n_cols, format.block_size, layout.group, *(FEWEST << i for i in range(6))}
    return sorted((n for n in sizes if n >= FEWEST and n_cols % n == 0), reverse=True)


def _fit(units: F64, values: F32, n: int, with_minima: bool) -> tuple[F64, F64]:
    """The best scale for each ``n`` neighbours, and the best minimum or 0: each value's own, ``(n_rows, n_cols)``."""
    x, y = units.reshape(len(units), -1, n), values.astype(np.float64).reshape(len(units), -1, n)
    means = [some.mean(axis=2, keepdims=True) if with_minima else np.zeros((1, 1, 1)) for some in (x, y)]
    squares = ((x - means[0]) ** 2).sum(axis=2, keepdims=True)
    scales = ((x - means[0]) * (y - means[1])).sum(axis=2, keepdims=True) / np.where(squares > 0, squares, 1)
    minima = means[1] - scales * means[0]
    return np.repeat(scales[:, :, 0], n, axis=1), np.repeat(minima[:, :, 0], n, axis=1)


def _shared(scales: F32) -> F32:
    """Scales without those that only repeat the one before."""
    while scales.shape[1] % 2 == 0 and np.array_equal(scales[:, ::2], scales[:, 1::2], equal_nan=True):
        scales = scales[:, ::2]
    return scales


def _otherwise(format: QuantFormat, own: F32, scales: F64, n_cols: int) -> str:
    """How the encoder's ``scales`` differ from the layout's ``own``, each ``(n_rows, k)``."""
    for name, n in _units(format, n_cols):
        if _has_upper(own.astype(np.float64), scales, n * own.shape[1] // n_cols):
            return (
                f"to the encoder the scales of each {name} are multiplied by a number more: is the upper level of "
                "scales forgotten (times=)?"
            )
    ratio = _ratio(own.astype(np.float64), scales)
    if abs(ratio - 1) < SAME:
        return (
            "codes go with other scales than those that are read: choose them by the scales as they are stored, rounded"
        )
    if ratio:
        return f"the encoder's scales are {ratio:.4g} times those of the layout: {OFF}"
    return (
        f"the codes are right and the scales are not: row 0 begins with a scale of about {scales[0, 0]:.3g} to the "
        f"encoder and {own[0, 0]:.3g} to the layout. See at which byte scales lie, of what kind they are, their less "
        "and factor"
    )


def _units(format: QuantFormat, n_cols: int) -> Iterator[tuple[str, int]]:
    if format.block_size < n_cols:
        yield "block", format.block_size
    yield "row", n_cols


def _has_upper(own: F64, scales: F64, n: int) -> bool:
    """Whether each ``n`` neighbours of ``scales`` are ``own`` times one number, which is not the same for all."""
    if n < 2 or not np.isfinite(own).all():
        return False
    x, y = own.reshape(len(own), -1, n), scales.reshape(len(own), -1, n)
    factors = (x * y).sum(axis=2, keepdims=True) / np.maximum((x * x).sum(axis=2, keepdims=True), 1e-300)
    rest = float(((y - factors * x) ** 2).sum() / (y**2).sum())
    return rest < SAME**2 and float(np.ptp(factors)) > APART * float(np.abs(factors).max())


def _ratio(own: F64, scales: F64) -> float:
    """What all of ``own`` are to be multiplied by, or 0."""
    if not np.isfinite(own).all():
        return 0.0
    ratio = float((own * scales).sum() / max(float((own * own).sum()), 1e-300))
    return ratio if float(((scales - ratio * own) ** 2).sum()) < SAME**2 * float((scales**2).sum()) else 0.0


def _counted(n: int, n_cols: int) -> str:
    return "all values of a row share" if n == n_cols else f"{n} values share"
