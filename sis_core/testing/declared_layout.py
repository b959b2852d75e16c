"""What a declared layout must keep to, and the usual mistakes in one: part of `check_quant_format`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.layout import Layout, Unpacked
from sis_core.quant import BlockFormat, QuantFormat

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
    if has_decoder(format):
        _like_the_decoder(format, layout, rows, n_cols, unpacked, case, fail)


def has_decoder(format: QuantFormat) -> bool:
    """Whether a format decodes by itself, and not as its layout says."""
    kind: Any = type(format)
    if isinstance(format, BlockFormat) and kind.dequantize is BlockFormat.dequantize:
        return kind.dequantize_blocks is not BlockFormat.dequantize_blocks
    return kind.dequantize not in (QuantFormat.dequantize, BlockFormat.dequantize)


def own_values(layout: Layout, unpacked: Unpacked) -> F32:
    """The tensor's own values, as `QuantFormat.dequantize` gives them by default."""
    values = layout.values(unpacked)
    return layout.transform.own(values) if layout.transform else values


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


def _like_the_decoder(
    format: QuantFormat, layout: Layout, rows: U8, n_cols: int, unpacked: Unpacked, case: str, fail: Fail
) -> None:
    wanted = format.dequantize(rows, n_cols)
    tolerance = _rounding(layout, unpacked, n_cols)
    if near(own_values(layout, unpacked), wanted, tolerance):
        return
    for words, other, numbers in mistakes(layout, unpacked, format.block_size):
        if near(own_values(other, numbers), wanted, tolerance):
            fail(f"its layout and its decoder differ: {words}", case)
    found = own_values(layout, unpacked)
    row, column = np.unravel_index(int(np.nan_to_num(np.abs(found - wanted)).argmax()), found.shape)
    fail(
        f"its layout and its decoder differ: row {row}, column {column} is {found[row, column]:g} by the layout, "
        f"{wanted[row, column]:g} by the decoder",
        case,
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


def mistakes(layout: Layout, unpacked: Unpacked, block_size: int) -> Iterator[tuple[str, Layout, Unpacked]]:
    """What a decoder may do that a layout does not say: in words, and as numbers."""
    yield from _orders(layout, unpacked, block_size)
    yield from _signs(layout, unpacked)
    yield from _scales(layout, unpacked)
    if layout.table is None and isinstance(layout.zero, int):
        for zero in range(-1, 1 << layout.bits):
            yield f"the decoder counts codes from {zero}, not from {layout.zero}", evolve(layout, zero=zero), unpacked
    sign = np.uint8(1 << (layout.bits - 1))
    yield (
        "one of them takes codes for numbers in two's complement, the other for numbers from zero",
        layout,
        evolve(unpacked, codes=unpacked.codes ^ sign),
    )
    if isinstance(layout.table, tuple):
        yield "the table is in reverse order", evolve(layout, table=layout.table[::-1]), unpacked
        for by in (1, -1):
            yield "codes are off by one in the table", evolve(layout, table=np.roll(layout.table, by)), unpacked


def _orders(layout: Layout, unpacked: Unpacked, block_size: int) -> Iterator[tuple[str, Layout, Unpacked]]:
    n_rows, n_cols = unpacked.codes.shape
    sizes = {size for size in (block_size, layout.group, 64, 32, 16) if size > 1 and n_cols % size == 0}
    for size in sorted(sizes, reverse=True):
        for words, order in orders(size):
            codes = unpacked.codes.reshape(n_rows, -1, size)[:, :, order].reshape(n_rows, n_cols)
            yield f"in every {size} values {words}", layout, evolve(unpacked, codes=codes)


def _signs(layout: Layout, unpacked: Unpacked) -> Iterator[tuple[str, Layout, Unpacked]]:
    minima = unpacked.minima
    negative = None if minima is None else -minima
    yield "values have the other sign", layout, evolve(unpacked, scales=-unpacked.scales, minima=negative)
    if minima is not None:
        yield "the layout adds a minimum that the decoder subtracts", layout, evolve(unpacked, minima=negative)
        yield "only the layout adds a minimum", layout, evolve(unpacked, minima=np.zeros_like(minima))
        yield "the scale has the other sign", layout, evolve(unpacked, scales=-unpacked.scales)


def _scales(layout: Layout, unpacked: Unpacked) -> Iterator[tuple[str, Layout, Unpacked]]:
    scales, minima = unpacked.scales, unpacked.minima
    for by, words in ((1, "before"), (-1, "behind")):
        if scales.shape[1] > 1:
            shifted = evolve(unpacked, scales=np.roll(scales, by, axis=1))
            yield f"the decoder takes the scale of the group {words} each", layout, shifted
    if minima is not None:
        yield "scale and minimum are exchanged", layout, evolve(
            unpacked, scales=minima, minima=scales, super_scales=unpacked.super_minima,
            super_minima=unpacked.super_scales,
        )  # fmt: skip
    if layout.scale.kind in ("uint", "int"):
        for less in (1, -1):
            words = f"the decoder takes scales that are {'less' if less > 0 else 'more'} by one"
            yield words, layout, evolve(unpacked, scales=scales - np.float32(less) * np.float32(layout.scale.factor))
    for factor in (2, 0.5, 4, 0.25, 127, 1 / 127, 128, 1 / 128, 7, 1 / 7, 8, 1 / 8, 15, 1 / 15):
        many = evolve(
            unpacked, scales=scales * np.float32(factor), minima=None if minima is None else minima * np.float32(factor)
        )
        yield f"the decoder's values are {factor:.4g} times as large: a scale is off", layout, many


def orders(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Mistaken orders of ``size`` values: where value ``i`` of the original is found."""
    index = np.arange(size)
    if size % 2:
        return
    yield "the halves of each block are swapped", np.roll(index, size // 2)
    yield "low and high nibbles of each byte are swapped", index ^ 1
    for n in (4, 8):
        if size % n == 0:
            yield f"the {n} values of each byte are reversed: one side begins with the highest bit", index ^ (n - 1)
    pairs = index.reshape(-1, 2).T.reshape(-1)
    yield "one side takes the nibbles of a byte for neighbours, the other for values half a block apart", pairs
    yield (
        "one side takes the nibbles of a byte for values half a block apart, the other for neighbours",
        np.argsort(pairs),
    )
    for words, order in (("neighbours", pairs), ("values half a block apart", np.argsort(pairs))):
        other = "values half a block apart" if words == "neighbours" else "neighbours"
        high_first = np.argsort(order ^ 1) if words == "neighbours" else order[index ^ 1]
        yield f"one side takes the nibbles of a byte for {words}, the high one first, the other for {other}", high_first
    yield "each block is reversed", index[::-1]
