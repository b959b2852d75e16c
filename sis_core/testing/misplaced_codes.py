"""Codes that are not those of the nearest levels by the layout, and the reading of the same bytes by which they are.

An encoder rounds to the nearest of what codes stand for, by the scales that it writes. Where a layout reads these
otherwise, values near a boundary are on the wrong side of it. So a scale of 8 bits that is off by one shows here,
though it adds next to nothing to the error. An encoder that does not round to the nearest does no more so by another
reading.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_core.arrays import F32, F64, U8
from sis_core.guarded import unpacked
from sis_core.layout import Layout, Unpacked
from sis_core.quant import QuantFormat
from sis_core.testing.alterations import ALTERATIONS, one_off
from sis_core.testing.reading import Read, for_each_value

SEEN = 40  # values, at least, whose code is not the nearest
SHARE = 0.05  # of all values: by more than these, anything else than an offset of one may be the reason
LEFT = 0.4  # of them, at most, by the reading that is named: 1/4 where codes are chosen before a scale is rounded
OTHERS_LEFT = 0.1  # by one of the many that are not an offset of one
MANY = 0.3  # of all values: more than where means of what is rounded to them are the levels, as in ternary formats
SLACK = 1e-3  # of the scale's unit: values that lie on a boundary

Places = np.ndarray[Any, np.dtype[np.bool_]]


def misread(format: QuantFormat, rows: U8, values: F32) -> str:
    """The usual mistake by which codes are those of the nearest levels, where they are not by the layout; else empty.

    Nothing is said of layouts with a transform.

    Args:
        rows: what was written, ``(n_rows, row_bytes)``.
        values: what was given ``(n_rows, n_cols)``, in groups of very different sizes.
    """
    layout = format.layout
    if layout is None or layout.transform is not None:
        return ""
    read = Read(format, layout, rows, unpacked(format, rows, values.shape[1]))
    counted, now = _misplaced(layout, read.unpacked, values)
    n = int(np.count_nonzero(now & counted))
    if n < SEEN:
        return ""
    ways = ((one_off, LEFT), *((other, OTHERS_LEFT) for other in ALTERATIONS if other is not one_off))
    group = layout.group
    fewest, words, before = 1.0, "", _lost(layout.values(read.unpacked), values, group)
    with np.errstate(all="ignore"):
        for alteration, left in ways[: 1 if n < SHARE * values.size else None]:
            for its_words, its_layout, numbers in alteration(read):
                if its_layout.transform is not None:
                    continue
                its_counted, found = _misplaced(its_layout, numbers, values)
                both = counted & its_counted
                of = int(np.count_nonzero(now & both))
                share = np.count_nonzero(found & both) / max(of, 1)
                if of < SEEN or 2 * np.count_nonzero(both) < np.count_nonzero(counted):
                    continue
                if share < min(fewest, left) and _lost(its_layout.values(numbers), values, group) < before:
                    fewest, words = share, its_words
    return words and f"its layout and its encoder differ: {words.replace('{other}', 'encoder')}"


def not_nearest(format: QuantFormat, rows: U8, values: F32) -> str:
    """That many codes are not those of the nearest levels, with the first of them; empty where they are few.

    Arguments as in `misread`.
    """
    layout = format.layout
    if layout is None or layout.transform is not None:
        return ""
    numbers = unpacked(format, rows, values.shape[1])
    counted, found = _misplaced(layout, numbers, values)
    found &= counted
    share = float(found.mean())
    if share < MANY:
        return ""
    decoded = layout.values(numbers)
    row, column = np.argwhere(found)[0]
    return (
        f"{share:.0%} of the codes are not those nearest to the values, by the scales that the layout reads: row "
        f"{row}, column {column} was {values[row, column]:.4g} and has the code {numbers.codes[row, column]}, for "
        f"{decoded[row, column]:.4g}. Before raising max_error, see whether group, table, where codes and scales lie, "
        "and the kinds of these are the encoder's"
    )


def _lost(found: F32, values: F32, group: int) -> float:
    """The squares of errors, relative to those of the values, each group counted alike; infinite for no number."""
    ours, theirs = (some.astype(np.float64).reshape(-1, group) for some in (found, values))
    lost = float((((ours - theirs) ** 2).sum(axis=1) / np.maximum((theirs**2).sum(axis=1), 1e-300)).mean())
    return lost if np.isfinite(lost) else np.inf


def _misplaced(layout: Layout, numbers: Unpacked, values: F32) -> tuple[Places, Places]:
    """Which codes say something, and which are not the nearest: bool ``(n_rows, n_cols)`` each."""
    minima, n_cols = numbers.combined_minima(), values.shape[1]
    scales = for_each_value(numbers.combined_scales(), n_cols)
    with np.errstate(all="ignore"):
        units = (values - (0 if minima is None else for_each_value(minima, n_cols))) / scales
    sound = np.isfinite(units)
    units = np.where(sound, units, 0)
    own = layout.code_values
    if own is not None:
        wrong = beyond(own, numbers.codes, units)
    else:
        assert numbers.tables is not None
        wrong = np.stack([beyond(*row) for row in zip(numbers.tables, numbers.codes, units, strict=True)])
    dropped = (numbers.codes == layout.zero) & layout.two_of_four  # these stood for whatever they did
    return (scales != 0) & ~dropped, wrong | ~sound


def beyond(levels: F64 | F32, codes: U8, units: F64) -> Places:
    """Which values, given in units of the scale, are nearer to another of ``levels`` than to that of their code."""
    ascending = np.sort(np.asarray(levels, np.float64))
    units = np.clip(units, ascending[0] - 1, ascending[-1] + 1)  # the distances of very large ones are all the same
    nearest = ascending[np.searchsorted((ascending[1:] + ascending[:-1]) / 2, units)]
    slack = SLACK * np.abs(ascending).max() / len(levels)
    apart: Places = np.abs(units - np.asarray(levels, np.float64)[codes]) > np.abs(units - nearest) + slack
    return apart
