"""The usual mistakes in an encoder that writes other numbers than the layout reads: part of `check_quant_format`.

Each mistake is undone in what was written. The one that brings the values back best is named, where it explains them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.guarded import unpacked
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat
from sis_core.testing.alterations import altered, is_symmetric, or_reversed, orders
from sis_core.testing.declared_layout import decoder_mistake
from sis_core.testing.fits import fitted, nearer_to_others
from sis_core.testing.reading import Read, own_values, relative_error

EXPLAINS = 0.5  # of the error, at most: what a named mistake leaves
CLEARLY = 0.7  # of the error of another explanation
CUT, CUT_OF_FEW = 0.25, 0.5  # of all values: more than these do not lie beyond the range, of up to 8 codes
SQUARES = 3.0  # of what rounding loses: by so much values may become smaller or larger as well
ALL = 0.98  # of all values, that a search for the nearest level sends to the ends where levels do not ascend
UNSORTED = ", or it searches among levels that do not ascend, as np.searchsorted needs them"
ASTRAY = 4.0  # times the values: numbers that lie elsewhere would hold all of them at the ends of a range
UNUSED = 0.25  # of all codes: so many, and two, are not left out on purpose


def mistake_of(format: QuantFormat, rows: U8, values: F32, wanted: float) -> str:
    """What the encoder likely did wrong, or a decoder beside it; empty where no usual mistake explains it.

    Args:
        rows: what it wrote, ``(n_rows, row_bytes)``.
        values: what it was given ``(n_rows, n_cols)``.
        wanted: the relative error that is still explained.
    """
    layout = format.layout
    if layout is None:
        return ""
    n_cols = values.shape[1]
    with np.errstate(all="ignore"):
        read = Read(format, layout, rows, unpacked(format, rows, n_cols))
        if fault := decoder_mistake(read, n_cols):
            return fault
        now = relative_error(own_values(layout, read.unpacked), values)
        error, words = np.inf, ""
        for its_words, found in altered(read):
            if (its_error := relative_error(found, values)) < error:
                error, words = its_error, its_words
        fits = [(relative_error(found, values), its_words) for its_words, found in fitted(read, values)]
        for its_error, its_words in [*fits, *_left_undone(read, values)]:
            if its_error < CLEARLY * error:
                error, words = its_error, its_words
        if not error <= min(wanted, EXPLAINS * now if np.isfinite(now) else np.inf):
            words = _cut(layout, read.unpacked)
    return words and f"its layout and its encoder differ: {words.replace('{other}', 'encoder')}"


def order_or_sign(format: QuantFormat, rows: U8, values: F32, decoded: F32, wanted: float) -> str:
    """Whether the values ``(n_rows, n_cols)`` came back in another order or with the other sign; empty where not.

    A table in reverse order is much the same as the other sign, and is named where it brings the values back better.
    """
    size, layout = format.block_size, format.layout
    blocks, found = values.reshape(-1, size), decoded.reshape(-1, size)
    words = f"values come back with the sign reversed{or_reversed(layout) if layout else ''}"
    candidates = [(relative_error(-found, blocks), words)]
    if layout and isinstance(layout.table, tuple) and not is_symmetric(layout):
        turned = own_values(evolve(layout, table=layout.table[::-1]), unpacked(format, rows, values.shape[1]))
        words = "its layout and its encoder differ: the table is in reverse order"
        candidates.append((relative_error(turned, values), words))
    for fault, order in orders(size):
        candidates.append((relative_error(found[:, order], blocks), f"values come back in another order: {fault}"))
    error, words = min(candidates)
    return words if error < wanted else ""


def size_of(values: F32, decoded: F32, size: int, wanted: float, rows_share: bool = False) -> str:
    """Whether the values of blocks of ``size``, or of rows, came back too large or too small; empty where not.

    Args:
        rows_share: whether there is one scale for each row, and not for each block.
    """
    if rows_share and (words := _size_of_units(values, decoded, values.shape[1], wanted, "row")):
        return words
    words = _size_of_units(values, decoded, size, wanted, "block")
    if words and rows_share:
        return f"{words.partition(':')[0]}, but all of a row share a scale: the encoder divides by one for each block"
    return words


def _size_of_units(values: F32, decoded: F32, size: int, wanted: float, name: str) -> str:
    units, found = values.reshape(-1, size), decoded.reshape(-1, size)
    factors = (found * units).sum(axis=1) / (units * units).sum(axis=1)
    if not relative_error(factors[:, None] * units, found) < wanted:
        return ""
    spread = factors.max() / max(factors.min(), 1e-30)
    if spread < 1.5:
        usual = float(np.median(factors))
        return "" if 0.9 < usual < 1.1 else f"values come back {usual:.3g} times as large"
    worst = int(np.abs(np.log(np.maximum(factors, 1e-30))).argmax())
    reason = f"it uses another {name}'s scale, or the encoder does not divide by the scale that it writes"
    return f"{name} {worst} comes back {factors[worst]:.3g} times as large: {reason}"


def off_scale(values: F32, decoded: F32) -> str:
    """Whether values came back larger or smaller by more than rounding explains; empty where not.

    The error of rounding to the nearest hardly depends on the value, or takes its own square from it (where levels are
    means of what is rounded to them): what comes back is 1, give or take a few of these squares, times as large.
    """
    kept, own = decoded.astype(np.float64), values.astype(np.float64)
    size = float((own**2).sum())
    factor = float((kept * own).sum()) / size
    rounding = float(((kept - factor * own) ** 2).sum()) / size
    if abs(factor - 1) <= SQUARES * rounding + 2.0**-8:
        return ""
    return f"values come back {factor:.4g} times as large, more than rounding explains: a scale is off"


def unused_codes(format: QuantFormat, rows: U8, n_cols: int) -> str:
    """Codes that were never written, where these are many at the ends of what codes stand for; else empty."""
    layout = format.layout
    if layout is None or layout.table == "row" or layout.bits < 2:
        return ""
    codes = unpacked(format, rows, n_cols).codes
    written = np.bincount(codes.reshape(-1), minlength=1 << layout.bits) > 0
    order = np.argsort(layout.table, kind="stable") if isinstance(layout.table, tuple) else np.arange(len(written))
    used = np.flatnonzero(written[order])
    outer = np.concatenate([order[: used[0]], order[used[-1] + 1 :]])
    if len(outer) < max(2, UNUSED * len(written)):
        return ""
    return f"the codes {_ranges(np.sort(outer))} are never written: a scale is too large, or an end of the range is cut"


def exchanged_codes(format: QuantFormat, rows: U8, values: F32) -> str:
    """Codes that were written for values which others stand for; else empty. Arguments as in `mistake_of`."""
    if format.layout is None:
        return ""
    words = nearer_to_others(Read(format, format.layout, rows, unpacked(format, rows, values.shape[1])), values)
    return words and f"its layout and its encoder differ: {words.replace('{other}', 'encoder')}"


def _left_undone(read: Read, values: F32) -> Iterator[tuple[float, str]]:
    """Codes of values from which a step was left out, and which are cut where codes end: the error, and in words."""
    layout, now = read.layout, read.unpacked
    if layout.transform is not None:
        return
    ones = np.ones_like(now.scales)
    left = [("does not divide by the scale that it writes", evolve(now, scales=ones, super_scales=None))]
    if now.minima is not None:
        right, wrong = "takes the minimum away", "adds the minimum"
        if isinstance(layout.zero, Scale):
            right, wrong = "adds the zero", "takes the zero away"
        left.append((f"rounds before it {right}, or never does", evolve(now, minima=None, super_minima=None)))
        left.append((f"{wrong} where it must do the opposite", evolve(now, minima=-now.minima)))
    for words, numbers in left:
        one, other = (own_values(layout, evolve(numbers, codes=np.full_like(now.codes, end))) for end in _ends(layout))
        held = np.clip(values, np.minimum(one, other), np.maximum(one, other))
        if relative_error(held, values) < ASTRAY:
            its_error = 2 * relative_error(own_values(layout, numbers), held)  # cut values explain less
            yield its_error, f"the encoder {words}"


def _ends(layout: Layout) -> tuple[int, int]:
    """The codes of the smallest value and of the largest."""
    if isinstance(layout.table, tuple):
        return int(np.argmin(layout.table)), int(np.argmax(layout.table))
    return 0, (1 << layout.bits) - 1


def _cut(layout: Layout, numbers: Unpacked) -> str:
    """Whether many values were beyond what codes can stand for."""
    ends = _ends(layout)
    share = float(np.isin(numbers.codes, ends).mean())
    if layout.bits < 2 or share <= (CUT if layout.bits > 3 else CUT_OF_FEW):
        return ""
    shown = f"{share:.0%} of values have the code {ends[0]} or {ends[1]}, the ends of the range"
    return f"{shown}: the encoder's scale is too small{UNSORTED if share > ALL else ''}"


def _ranges(numbers: np.ndarray) -> str:
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in np.split(numbers, cuts)]
    return ", ".join(parts)
