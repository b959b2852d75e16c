"""The usual mistakes in an encoder that writes other numbers than the layout reads: part of `check_quant_format`.

Each mistake is undone in what was written. The one that brings the values back best is named, where it explains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.fields import FLOAT_BYTES, Kind
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import QuantFormat
from sis_core.testing.declared_layout import mistakes, orders, own_values
from sis_core.transform import Hadamard, PerColumn

EXPLAINS = 0.5  # of the error, at most: what a named mistake leaves
CLEARLY = 0.7  # of the error of another explanation
CUT = 0.5  # of all values: more than these do not lie beyond the range
SQUARES = 3.0  # of what rounding loses: by so much values may become smaller or larger as well
UNUSED = 0.25  # of all codes: so many, and two, are not left out on purpose


def mistake_of(format: QuantFormat, rows: U8, values: F32, wanted: float) -> str:
    """What the encoder likely did wrong, in a clause; empty where no usual mistake explains it.

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
        unpacked = format.unpack(rows, n_cols)
        try:
            layout.check_unpacked(unpacked, *values.shape)
        except FormatError as refusal:
            return str(refusal)
        now = _error(own_values(layout, unpacked), values)
        candidates = [
            (_error(own_values(other, numbers), values), words)
            for words, other, numbers in _undone(format, layout, rows, unpacked)
        ]
        error, words = min(candidates, default=(np.inf, ""))
        for look in (_levels, _offsets, _undivided) if layout.transform is None else ():
            other, its_words = look(layout, unpacked, values)
            if other < CLEARLY * error:  # these have numbers to choose, and so explain more of anything
                error, words = other, its_words
        if error <= min(wanted, EXPLAINS * now if np.isfinite(now) else np.inf):
            return words
        return _cut(layout, unpacked)


def order_or_sign(values: F32, decoded: F32, size: int, wanted: float) -> str:
    """Whether the values ``(n_rows, n_cols)`` came back in another order or with the other sign; empty where not."""
    blocks, found = values.reshape(-1, size), decoded.reshape(-1, size)
    candidates = [(_error(-found, blocks), "values come back with the sign reversed")]
    for fault, order in orders(size):
        candidates.append((_error(found[:, order], blocks), f"values come back in another order: {fault}"))
    error, words = min(candidates)
    return words if error < wanted else ""


def size_of(values: F32, decoded: F32, size: int, wanted: float) -> str:
    """Whether the values of blocks came back too large or too small; empty where not."""
    blocks, found = values.reshape(-1, size), decoded.reshape(-1, size)
    factors = (found * blocks).sum(axis=1) / (blocks * blocks).sum(axis=1)
    if not _error(factors[:, None] * blocks, found) < wanted:
        return ""
    spread = factors.max() / max(factors.min(), 1e-30)
    if spread < 1.5:
        usual = float(np.median(factors))
        return "" if 0.9 < usual < 1.1 else f"values come back {usual:.3g} times as large"
    worst = int(np.abs(np.log(np.maximum(factors, 1e-30))).argmax())
    reason = "it uses another block's scale, or the encoder does not divide by the scale that it writes"
    return f"block {worst} comes back {factors[worst]:.3g} times as large: {reason}"


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
    codes = format.unpack(rows, n_cols).codes
    if codes.dtype != np.uint8:
        return f"unpack gives codes as {codes.dtype}, not uint8: they count from 0, and zero says which stands for 0"
    written = np.bincount(codes.reshape(-1), minlength=1 << layout.bits) > 0
    order = np.argsort(layout.table, kind="stable") if isinstance(layout.table, tuple) else np.arange(len(written))
    used = np.flatnonzero(written[order])
    outer = np.concatenate([order[: used[0]], order[used[-1] + 1 :]])
    if len(outer) < max(2, UNUSED * len(written)):
        return ""
    return f"the codes {_ranges(np.sort(outer))} are never written: a scale is too large, or an end of the range is cut"


def off_by_one(format: QuantFormat, rows: U8, values: F32) -> str:
    """Whether whole scales of two levels are off by one, which is felt where they are small; else empty.

    Args:
        rows: what was written, ``(n_rows, row_bytes)``.
        values: what was given ``(n_rows, n_cols)``, in groups of very different sizes.
    """
    layout = format.layout
    if layout is None or layout.transform is not None:
        return ""
    levels = [(name, scale) for name, scale in (("scale", layout.scale), ("minimum", layout.minimum)) if scale]
    unpacked = format.unpack(rows, values.shape[1])
    now = _error_of_groups(own_values(layout, unpacked), values, layout.group)
    for name, scale in levels:
        numbers = unpacked.scales if name == "scale" else unpacked.minima
        if numbers is None or scale.times is None or scale.kind not in ("uint", "int"):
            continue
        for by, words in ((1, "less"), (-1, "more")):
            moved = numbers + np.float32(by * scale.factor)
            other = evolve(unpacked, scales=moved) if name == "scale" else evolve(unpacked, minima=moved)
            if _error_of_groups(own_values(layout, other), values, layout.group) < EXPLAINS * now:
                what = "scales" if name == "scale" else "minima"
                return f"the encoder writes lower {what} that are {words} by one than the layout takes them for"
    return ""


def _error_of_groups(found: F32, values: F32, group: int) -> float:
    """As `_error`, each group counted alike but those of which nothing is left."""
    ours, theirs = found.reshape(-1, group).astype(np.float64), values.reshape(-1, group).astype(np.float64)
    kept = ours.any(axis=1)
    squares = ((ours - theirs) ** 2).sum(axis=1) / (theirs**2).sum(axis=1)
    return float(np.sqrt(squares[kept].mean())) if kept.any() else np.inf


def _undone(
    format: QuantFormat, layout: Layout, rows: U8, unpacked: Unpacked
) -> Iterator[tuple[str, Layout, Unpacked]]:
    """What the rows say if the encoder has made one mistake, which is named."""
    codes = unpacked.codes
    for by, words in ((1, "high"), (-1, "low")):
        moved = np.clip(codes.astype(np.int16) - by, 0, (1 << layout.bits) - 1).astype(np.uint8)
        yield f"the encoder writes codes that are one too {words}", layout, evolve(unpacked, codes=moved)
    minima = unpacked.minima
    if minima is not None and isinstance(layout.zero, Scale):
        step = np.repeat(unpacked.combined_scales(), minima.shape[1] // unpacked.combined_scales().shape[1], axis=1)
        for by, words in ((1, "more"), (-1, "less")):
            fault = f"the encoder writes zeros that are {words} by one than the layout takes them for"
            yield fault, layout, evolve(unpacked, minima=minima + np.float32(by) * step)
    yield from _turns(layout, unpacked, format.block_size)
    if minima is not None and unpacked.super_scales is None and unpacked.super_minima is None:
        for turned, words in (
            (1, "scale and minimum are exchanged"),
            (-1, "scale and minimum are exchanged, signs too"),
        ):
            exchanged = evolve(
                unpacked, scales=np.float32(turned) * minima, minima=np.float32(turned) * unpacked.scales
            )
            yield words, layout, exchanged
    if type(format).unpack is QuantFormat.unpack and layout.codes is not None:
        yield from _kinds(format, layout, rows)
    for words, other, numbers in mistakes(layout, unpacked, format.block_size):
        yield words.replace("decoder", "encoder"), other, numbers


def _turns(layout: Layout, unpacked: Unpacked, block_size: int) -> Iterator[tuple[str, Layout, Unpacked]]:
    """Values that the encoder turned otherwise than the layout says, or not at all."""
    said = layout.transform
    if isinstance(said, PerColumn):
        return
    if said is not None:
        words = f"the layout has the transform {said}, which the encoder forgets"
        yield words, evolve(layout, transform=None), unpacked
    size = 2
    while block_size % size == 0:
        if said is None or size != said.size:
            words = f"the encoder transforms values by Hadamard({size}), the layout says {said or 'no transform'}"
            yield words, evolve(layout, transform=Hadamard(size)), unpacked
        size *= 2


def _kinds(format: QuantFormat, layout: Layout, rows: U8) -> Iterator[tuple[str, Layout, Unpacked]]:
    """Floats that are stored otherwise than the layout says."""
    blocks, n_rows = rows.reshape(-1, format.type_size), len(rows)
    for name in ("scale", "minimum"):
        scale: Scale | None = getattr(layout, name)
        if scale is None or scale.kind not in FLOAT_BYTES:
            continue
        size = FLOAT_BYTES[scale.kind]
        for kind in FLOAT_BYTES:
            if kind != scale.kind and FLOAT_BYTES[kind] == size:
                stored = evolve(scale, kind=cast("Kind", kind))
                other = evolve(layout, scale=stored) if name == "scale" else evolve(layout, minimum=stored)
                yield (
                    f"the encoder writes the {name} as {kind}, the layout says {scale.kind}",
                    other,
                    other.unpack_blocks(blocks, format.block_size, n_rows),
                )
        if size > 1:
            per = scale.per if isinstance(scale.per, int) else layout.group
            swapped = blocks.copy()
            for run in scale.runs:
                n = format.block_size // per // len(scale.runs)
                places = run.at + np.arange(n) * run.step // 8
                for i in range(size):
                    swapped[:, places + i] = blocks[:, places + size - 1 - i]
            yield (
                f"the encoder writes the {name} with its higher byte first",
                layout,
                layout.unpack_blocks(swapped, format.block_size, n_rows),
            )


def _levels(layout: Layout, unpacked: Unpacked, values: F32) -> tuple[float, str]:
    """What codes stand for by the values, times the scales: its error, and in words."""
    scales, codes = unpacked.combined_scales(), unpacked.codes
    every = np.repeat(scales, values.shape[1] // scales.shape[1], axis=1).astype(np.float64)
    if layout.table == "row" or unpacked.minima is not None or not np.isfinite(every).all():
        return np.inf, ""
    n = 1 << layout.bits
    weights, sums = (np.bincount(codes.reshape(-1), what.reshape(-1), n) for what in (every**2, every * values))
    levels = sums / np.where(weights > 0, weights, 1)  # least squares
    used = np.flatnonzero(weights > 0)
    if not used.size:
        return np.inf, ""
    shown = ", ".join(f"{code} for {levels[code]:.3g}" for code in used[[0, len(used) // 2, -1]].tolist())
    words = (
        f"the encoder's codes stand for other numbers than the layout's: {shown} times the scale; is a table missing?"
    )
    return _error((every * levels[codes]).astype(np.float32), values), words


def _offsets(layout: Layout, unpacked: Unpacked, values: F32) -> tuple[float, str]:
    """The layout's numbers plus one for each group: the error, and in words."""
    if unpacked.minima is not None:
        return np.inf, ""
    found = own_values(layout, unpacked)
    groups = (values - found).reshape(len(values), -1, layout.group)
    found = found + np.repeat(groups.mean(axis=2), layout.group, axis=1)
    return _error(found, values), "the encoder takes a number from each group that the layout does not add: a minimum?"


def _undivided(layout: Layout, unpacked: Unpacked, values: F32) -> tuple[float, str]:
    """Codes of the values themselves, which are cut where the range of codes ends: the error, and in words."""
    found = own_values(layout, evolve(unpacked, scales=np.ones_like(unpacked.scales), super_scales=None))
    table = layout.table if isinstance(layout.table, tuple) else (found.min(), found.max())
    error = 2 * _error(found, np.clip(values, min(table), max(table)))  # cut values explain less
    return error, "the encoder does not divide by the scale that it writes"


def _cut(layout: Layout, unpacked: Unpacked) -> str:
    """Whether most values were beyond what codes can stand for."""
    ends = (0, (1 << layout.bits) - 1)
    if isinstance(layout.table, tuple):
        ends = int(np.argmin(layout.table)), int(np.argmax(layout.table))
    if layout.bits < 2 or np.isin(unpacked.codes, ends).mean() <= CUT:
        return ""
    return f"most values have the code {ends[0]} or {ends[1]}, the ends of the range: the encoder's scale is too small"


def _error(found: F32, values: F32) -> float:
    """Root mean square, relative to that of the values; infinite where there is no number."""
    squares = ((found.astype(np.float64) - values) ** 2).sum() / (values.astype(np.float64) ** 2).sum()
    return float(np.sqrt(squares)) if np.isfinite(squares) else np.inf


def _ranges(numbers: np.ndarray) -> str:
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in np.split(numbers, cuts)]
    return ", ".join(parts)
