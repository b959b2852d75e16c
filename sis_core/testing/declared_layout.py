"""What a declared layout must keep to, and the usual mistakes in one: part of `check_quant_format`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.layout import Layout, Unpacked
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing.alterations import altered
from sis_core.testing.fits import fitted
from sis_core.testing.reading import Read, own_values

N_ROWS = 7
EXACT = 1e-5  # of the largest value of a row: products of three may be rounded in another order

Fail = Callable[[str, str], NoReturn]


def check_layout(format: QuantFormat, bytes_of: Callable[[int, int], U8], n_cols: int, fail: Fail) -> None:
    """Hold a format's layout to the contract of `sis_core.layout`, and its numbers to the format's own decoder.

    They may differ by the rounding of a table to 8 bits, since a layout may state the rounded one.

    Args:
        bytes_of: makes ordinary rows of so many values: ``(n_rows, row_bytes)``.
        n_cols: values of the rows to try.
        fail: raises with a fault and the case in which it showed.
    """
    layout = format.layout
    if layout is None:
        return
    case = f"rows of {n_cols} values"
    try:
        layout.check(format.block_size, format.type_size)
        rows = bytes_of(N_ROWS, n_cols)
        unpacked = _unpacked(format, rows, n_cols, case, fail)
    except FormatError as error:
        fail(f"its layout cannot be: {error}", case)
    _alone(format, layout, rows, n_cols, unpacked, case, fail)
    _by_blocks(format, layout, rows, n_cols, unpacked, case, fail)
    if fault := decoder_mistake(Read(format, layout, rows, unpacked), n_cols):
        fail(fault, case)


def has_decoder(format: QuantFormat) -> bool:
    """Whether a format decodes by itself, and not as its layout says."""
    kind: Any = type(format)
    if isinstance(format, BlockFormat) and kind.dequantize is BlockFormat.dequantize:
        return kind.dequantize_blocks is not BlockFormat.dequantize_blocks
    return kind.dequantize not in (QuantFormat.dequantize, BlockFormat.dequantize)


def _unpacked(format: QuantFormat, rows: U8, n_cols: int, case: str, fail: Fail) -> Unpacked:
    assert format.layout is not None
    given, before = rows.view(), rows.copy()
    given.flags.writeable = False
    try:
        unpacked = format.unpack(given, n_cols)
    except FormatError:
        raise
    except Exception as error:
        verb = "unpack writes to its input" if "read-only" in str(error) else f"unpack fails: {error!r}"
        fail(verb, case)
    if not isinstance(unpacked, Unpacked):
        fail(f"unpack returns {type(unpacked).__name__}, not Unpacked", case)
    if not np.array_equal(before, rows):
        fail("unpack writes to its input", case)
    format.layout.check_unpacked(unpacked, len(rows), n_cols)
    return unpacked


def _alone(
    format: QuantFormat, layout: Layout, rows: U8, n_cols: int, unpacked: Unpacked, case: str, fail: Fail
) -> None:
    """A row's numbers are its own: weights are unpacked some rows at a time."""
    whole = own_values(layout, unpacked)
    for i in range(len(rows)):
        if not np.array_equal(own_values(layout, format.unpack(rows[i : i + 1], n_cols))[0], whole[i], equal_nan=True):
            fail(f"unpack: row {i} alone gives other numbers than among {len(rows)} rows", case)


def _by_blocks(
    format: QuantFormat, layout: Layout, rows: U8, n_cols: int, unpacked: Unpacked, case: str, fail: Fail
) -> None:
    """So are a block's: a format of blocks is decoded block by block, and packed row by row."""
    if not isinstance(format, BlockFormat) or has_decoder(format):
        return
    blocks = own_values(layout, format.unpack(rows.reshape(-1, format.type_size), format.block_size))
    whole = own_values(layout, unpacked)
    same = np.equal(blocks.reshape(whole.shape), whole) | np.isnan(whole)
    if not same.all():
        row, column = np.argwhere(~same)[0]
        fail(
            f"unpack: block {column // format.block_size} of row {row} gives other numbers alone than in its row", case
        )


def decoder_mistake(read: Read, n_cols: int) -> str:
    """How the format's own decoder differs from the layout, by name where that is a usual mistake; empty where not."""
    if not has_decoder(read.format):
        return ""
    wanted = read.format.dequantize(read.rows, n_cols)
    tolerance = _rounding(read.layout, read.unpacked, n_cols)
    found = own_values(read.layout, read.unpacked)
    if near(found, wanted, tolerance):
        return ""
    sound = np.isfinite(wanted).all(axis=1)
    some = evolve(read, rows=read.rows[sound], unpacked=read.format.unpack(read.rows[sound], n_cols))
    with np.errstate(all="ignore"):
        named = [
            (words for words, values in altered(read) if near(values, wanted, tolerance)),
            (words for words, values in fitted(some, wanted[sound]) if near(values, wanted[sound], tolerance[sound])),
        ]
        words = next(chain.from_iterable(named), "")
    if words:
        return f"its layout and its decoder differ: {words.replace('{other}', 'decoder')}"
    row, column = np.unravel_index(int(np.nan_to_num(np.abs(found - wanted)).argmax()), found.shape)
    return (
        f"its layout and its decoder differ: row {row}, column {column} is {found[row, column]:g} by the layout, "
        f"{wanted[row, column]:g} by the decoder"
    )


def near(found: F32, wanted: F32, tolerance: F32) -> bool:
    """Whether values are the same within a tolerance for each, ``(n_rows, n_cols)``, and `EXACT`."""
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    ours, theirs = (np.where(finite, values, 0).astype(np.float64) for values in (found, wanted))
    return bool((np.abs(ours - theirs) <= tolerance + EXACT * np.abs(theirs).max(axis=1, keepdims=True)).all())


def _rounding(layout: Layout, unpacked: Unpacked, n_cols: int) -> F32:
    """What the rounding of a table to 8 bits may change of each value ``(n_rows, n_cols)``."""
    scales = np.nan_to_num(np.abs(unpacked.combined_scales()))
    every = np.repeat(scales, n_cols // scales.shape[1], axis=1)
    if unpacked.tables is not None:
        of_tables: F32 = every * (np.abs(unpacked.tables).max(axis=1, keepdims=True) / 254)
        return of_tables
    step = max(map(abs, layout.table)) / 254 if isinstance(layout.table, tuple) else 0.0
    return every * np.float32(step)
