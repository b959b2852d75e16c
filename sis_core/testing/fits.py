"""Mistakes in a layout with numbers of their own, found by least squares: so they explain more of anything.

As in `alterations`, ``{other}`` in the words is the decoder or the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve

from sis_core.arrays import F32
from sis_core.layout import Scale
from sis_core.testing.reading import Read, own_values

FEW = 4  # codes that stand for something else: each is named
OTHER = 0.02  # of the largest level: by so much a level differs


def fitted(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """Every fit to the values ``(n_rows, n_cols)`` that it applies to, in words, and what it gives."""
    if read.layout.transform is not None or not wanted.size or not np.isfinite(wanted).all():
        return
    for fit in FITS:
        yield from fit(read, wanted)


def _levels(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """What each code stands for, times the scale."""
    layout, codes, scales = read.layout, read.unpacked.codes, read.unpacked.combined_scales()
    every = np.repeat(scales, wanted.shape[1] // scales.shape[1], axis=1).astype(np.float64)
    if layout.table == "row" or read.unpacked.minima is not None or not np.isfinite(every).all():
        return
    n = 1 << layout.bits
    weights, sums = (np.bincount(codes.reshape(-1), what.reshape(-1), n) for what in (every**2, every * wanted))
    levels = sums / np.where(weights > 0, weights, 1)
    used = np.flatnonzero(weights > 0)
    if not used.size:
        return
    own = np.asarray(layout.table if isinstance(layout.table, tuple) else np.arange(n) - np.float64(_zero(read)))
    others = [code for code in used.tolist() if abs(levels[code] - own[code]) > OTHER * np.abs(own).max()]
    if not others:
        return
    if len(others) <= min(FEW, len(used) // 3):
        shown = [f"the code {c} stands for {levels[c]:.3g} times the scale, not {own[c]:.3g}" for c in others]
        words = f"to the {{other}} {' and '.join(shown)}"
    else:
        shown = [f"{code} for {levels[code]:.3g}" for code in used[[0, len(used) // 2, -1]].tolist()]
        question = "is a table missing?" if layout.table is None else "is it another table?"
        words = (
            "codes stand for other numbers to the {other} than to the layout: "
            f"{', '.join(shown)} times the scale; {question}"
        )
    yield words, (every * levels[codes]).astype(np.float32)


def _zero(read: Read) -> int:
    return read.layout.zero if isinstance(read.layout.zero, int) else 0


def _offsets(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """A number that is added to each group."""
    without = evolve(read.unpacked, minima=None, super_minima=None)
    found, group = own_values(read.layout, without), read.layout.group
    means = (wanted - found).reshape(len(wanted), -1, group).mean(axis=2)
    words = "the {other} has a number in each group that the layout does not add: a minimum?"
    if read.unpacked.minima is not None:
        what = "zero" if isinstance(read.layout.zero, Scale) else "minimum"
        words = f"the {{other}} has another {what} in each group than the block"
    yield words, found + np.repeat(means, group, axis=1)


def _size(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """All values larger or smaller."""
    found = own_values(read.layout, read.unpacked)
    own = found.astype(np.float64)
    factor = float((own * wanted).sum() / max((own**2).sum(), 1e-300))
    yield f"the {{other}}'s values are {factor:.4g} times as large: a scale is off", found * np.float32(factor)


FITS: tuple[Callable[[Read, F32], Iterator[tuple[str, F32]]], ...] = (_size, _levels, _offsets)
