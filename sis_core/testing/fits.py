"""Mistakes in a layout with numbers of their own, found by least squares: so they explain more of anything.

As in `alterations`, ``{other}`` in the words is the decoder or the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import F32, F64
from sis_core.layout import Scale
from sis_core.testing.reading import OFF, Read, for_each_value, own_values

FEW = 4  # codes that stand for something else: each is named
SEEN = 30  # times a code must be written before its values say something
NEARER = 0.75  # of the way to another code: half is what rounding towards zero does
MOST = 0.6  # of all codes, those at the ends of the range being cut
OTHER = 0.02  # of the largest level: by so much a level differs


def fitted(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """Every fit to the values ``(n_rows, n_cols)`` that it applies to, in words, and what it gives."""
    if read.layout.transform is not None or not wanted.size or not np.isfinite(wanted).all():
        return
    for fit in FITS:
        yield from fit(read, wanted)


@frozen(eq=False)
class _Levels:
    """What each code stands for, in units of the scale, which is ``every`` value's own: ``(n_rows, n_cols)``."""

    every: F64
    counts: np.ndarray[Any, Any]
    found: F64
    own: F64

    @property
    def used(self) -> np.ndarray[Any, Any]:
        return np.flatnonzero(self.counts)

    def named(self, codes: list[int]) -> str:
        shown = [f"the code {c} stands for {self.found[c]:.3g} times the scale, not {self.own[c]:.3g}" for c in codes]
        return f"to the {{other}} {' and '.join(shown)}"


def _levels_of(read: Read, wanted: F32) -> _Levels | None:
    layout, codes, scales = read.layout, read.unpacked.codes, read.unpacked.combined_scales()
    every = for_each_value(scales, wanted.shape[1])
    own = layout.code_values
    if own is None or read.unpacked.minima is not None or not np.isfinite(every).all():
        return None
    n = 1 << layout.bits
    weights, sums = (np.bincount(codes.reshape(-1), what.reshape(-1), n) for what in (every**2, every * wanted))
    counts = np.bincount(codes.reshape(-1), minlength=n) * (weights > 0)
    return _Levels(every, counts, sums / np.where(weights > 0, weights, 1), own)


def _levels(read: Read, wanted: F32) -> Iterator[tuple[str, F32]]:
    """What each code stands for, times the scale."""
    levels = _levels_of(read, wanted)
    if levels is None or not levels.used.size:
        return
    apart, found, used = levels.found - levels.own, levels.found, levels.used
    slack = OTHER * np.abs(levels.own).max()
    others = used[np.abs(apart[used]) > slack].tolist()
    if not others:
        return
    usual = float(np.median(apart[used]))
    if len(others) <= min(FEW, len(used) // 3):
        words = levels.named(others)
    elif abs(usual) > slack and (np.abs(apart[used] - usual) <= slack).mean() > MOST:
        more = f"{abs(usual):.3g} times the scale {'more' if usual > 0 else 'less'}"
        words = f"all codes stand for {more} to the {{other}} than to the layout: a bias?"
    else:
        shown = [f"{code} for {found[code]:.3g}" for code in used[[0, len(used) // 2, -1]].tolist()]
        question = "is a table missing?" if read.layout.table is None else "is it another table?"
        words = (
            "codes stand for other numbers to the {other} than to the layout: "
            f"{', '.join(shown)} times the scale; {question}"
        )
    yield words, (levels.every * found[read.unpacked.codes]).astype(np.float32)


def nearer_to_others(read: Read, wanted: F32) -> str:
    """Codes of values that are nearer to what others stand for, by more than any rounding; empty where none are."""
    levels = _levels_of(read, wanted) if read.layout.transform is None else None
    if levels is None:
        return ""
    near = levels.own[np.abs(levels.found[:, None] - levels.own).argmin(axis=1)]
    gaps = np.abs(near - levels.own)
    wrong = (levels.counts >= SEEN) & (np.abs(levels.found - levels.own) > NEARER * gaps) & (gaps > 0)
    return levels.named(np.flatnonzero(wrong)[:FEW].tolist()) if wrong.any() else ""


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
    yield f"the {{other}}'s values are {factor:.4g} times as large: {OFF}", found * np.float32(factor)


FITS: tuple[Callable[[Read, F32], Iterator[tuple[str, F32]]], ...] = (_size, _levels, _offsets)
