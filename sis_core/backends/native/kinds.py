"""Which kind of tile holds what a declared layout says.

``struct sis_kind`` in `include/sis/program.h` says what tiles may hold. Several may do for a layout; of those that keep
the scales of some rows best the one of fewest bytes is taken. Nothing holds a table with a minimum, nor one that 8 bits
would change by more than `MAX_SHARE`.
"""

from __future__ import annotations

import ctypes

import numpy as np
from attrs import evolve, frozen

from sis_core import quant
from sis_core.backends.native import abi
from sis_core.backends.native.library import Library
from sis_core.backends.native.rounded_scales import BFLOAT, HALF, lost, need_bfloat, scales_of_some
from sis_core.backends.native.row_tables import MAX_SHARE, share_of_some
from sis_core.layout import Layout, Scale
from sis_core.transform import Hadamard, PerColumn

SUPER = 256  # columns that share a second level
MUCH_MORE = 1.15  # bytes of tiles, of the file's: what keeps a format's bits takes no more
BYTE, SIX, NIBBLE, ONE = (abi.SCALES[name] for name in ("byte", "six", "nibble", "super"))
SIGNED, UNSIGNED, TABLE, ROW_TABLE, PAIRS, TERNARY = (
    abi.CODES[name] for name in ("signed", "unsigned", "table", "row_table", "pairs", "ternary")
)
RANGES = {  # of whole scales, and of minima
    BYTE: ((-128, 127), (0, 255)),
    SIX: ((-32, 31), (0, 63)),
    NIBBLE: ((0, 15), (0, 15)),
}


@frozen
class Kind:
    """What tiles of a format hold, by the format's number: ``struct sis_kind``.

    Attributes:
        instead: what holds a weight whose scales lose too much in this one, which some of its rows did not show.
    """

    number: int
    bits: int
    codes: int
    group: int
    scales: int
    instead: Kind | None = None


def kinds(library: Library) -> list[Kind]:
    """All kinds of tiles of whole numbers that a library has."""
    record = abi.Kind()
    return [
        Kind(number, record.bits, record.codes, record.group, record.scales)
        for number in (*abi.FORMATS.values(), *abi.TILES_ALONE.values())
        if library.kind(number, ctypes.addressof(record))
    ]


def kind_for(library: Library, weight: quant.Weight) -> Kind | str:
    """The kind of tile that holds a weight of a declared layout best: the smallest of those that lose least of scales.

    What halves lose of numbers in their range counts as nothing. Where there is no kind, the reason in a clause, for
    `sis doctor`.
    """
    layout, n_cols = weight.format.layout, weight.n_cols
    if layout is None:
        return "it has neither a layout nor a decoder in C"
    if reason := _no_transform(weight) or _too_rough(weight, layout):
        return reason
    of_codes = [kind for kind in kinds(library) if _codes_fit(layout, kind)]
    if not of_codes:
        what = "a table with a minimum" if layout.table is not None else f"{layout.bits} bits with this zero"
        return f"no tile holds {what}"
    fitting = {
        kind: size
        for kind in of_codes
        if _scales_fit(layout, kind, n_cols) and (size := int(library.tile_bytes(kind.number, abi.TILE, n_cols)))
    }
    few = MUCH_MORE * abi.TILE * weight.format.row_bytes(n_cols)
    if any(size <= few and kind.codes != TERNARY for kind, size in fitting.items()):  # digits of base 3 take longer
        fitting = {kind: size for kind, size in fitting.items() if kind.codes != TERNARY}
    if fitting:
        return _best(weight, fitting)
    spans = {_span(layout, scale, n_cols) for scale in (layout.scale, layout.minimum) if scale is not None}
    groups = sorted({min(kind.group, abi.BLOCK) for kind in of_codes})  # of what is larger, 32 is a part
    return (
        f"no tile has scales for {min(spans)} of {n_cols} columns; such codes have them for multiples of "
        f"{' or '.join(map(str, groups))}"
    )


def _best(weight: quant.Weight, sizes: dict[Kind, int]) -> Kind:
    smallest = min(sizes, key=lambda kind: (kind.scales == BFLOAT, sizes[kind]))
    ranged = min((kind for kind in sizes if kind.scales == BFLOAT), key=lambda kind: sizes[kind], default=None)
    if ranged is None or smallest is ranged:
        return smallest
    scales = scales_of_some(weight)
    if scales is not None and need_bfloat(scales):
        return ranged
    return evolve(smallest, instead=ranged) if smallest.scales == HALF else smallest


def how_packed(weight: quant.Weight, kind: Kind, nbytes: int) -> str:
    """What tiles of this kind change of a weight, and what they cost beside it, as the end of a sentence.

    Args:
        nbytes: of the tiles.
    """
    layout = weight.format.layout
    of_rows = layout is not None and layout.table == "row" and kind.codes != ROW_TABLE
    bytes_each = (
        "; each code is the byte that it stands for: tables of rows have tiles for at most 4 bits, and scales for"
        " a row or multiples of 128 columns"
    )
    whole = -(-weight.n_rows // abi.TILE) * abi.TILE / weight.n_rows * weight.nbytes
    times = f"; they take {nbytes / whole:.2f} times its bytes in the file" if nbytes > MUCH_MORE * whole else ""
    return (
        _rounding(weight) + _scale_rounding(weight, kind) + (bytes_each if of_rows else "") + times
        + _transforming(weight)
    )  # fmt: skip


def _scale_rounding(weight: quant.Weight, kind: Kind) -> str:
    """What tiles lose of a weight's scales, as far as some rows show it, as the end of a sentence."""
    if kind.scales not in (HALF, BFLOAT) or (scales := scales_of_some(weight)) is None:
        return ""
    part, name = lost(scales, kind.scales), "half precision" if kind.scales == HALF else "bfloat16"
    if part > 1:
        return f"; {name} has not the range of its scales"
    return f", its scales rounded to {name} by {part:.2%}" if part > 1e-4 else ""


def _transforming(weight: quant.Weight) -> str:
    """What is done to activations first; empty where that is nothing."""
    transform = weight.transform
    if isinstance(transform, Hadamard):
        n = transform.size.bit_length() - 1
        return f"; its input is turned by Hadamard({transform.size}) first, which takes {n} additions a value"
    if isinstance(transform, PerColumn):
        return "; its input is multiplied by a number for each column first"
    return ""


def _rounding(weight: quant.Weight) -> str:
    """What packing changes of the table of a weight's layout, as the end of a sentence; empty where that is nothing."""
    layout = weight.format.layout
    if layout and layout.table == "row":
        share = share_of_some(weight)
        return f", each row's table rounded to 8 bits by {share:.2g} of its codes' own error" if share > 1e-6 else ""
    table = layout.byte_table if layout else None
    if table is None or table.share < 1e-6:
        return ""
    largest = table.step * float(np.abs(table.numbers.astype(int)).max())
    return f", its table rounded by up to {table.error / largest:.1%} of its largest number"


def _no_transform(weight: quant.Weight) -> str:
    """Why activations cannot be transformed for a weight; empty where they can."""
    transform = weight.transform
    columns = {name for name, side in weight.side.items() if side.axis == "column"}
    said = {transform.side} if isinstance(transform, PerColumn) else set()
    if transform is not None and type(transform) not in (Hadamard, PerColumn):
        return f"kernels do not know the transform {type(transform).__name__}"
    if unsaid := columns - said:
        return f"no PerColumn in its layout names the side {min(unsaid)!r}, which multiplies columns"
    if transform is not None and len(weight.shape) != 2:
        return "activations of stacked matrices are not transformed"
    return ""


def _too_rough(weight: quant.Weight, layout: Layout) -> str:
    """Why a table must not be rounded to 8 bits; empty where it may."""
    if layout.table == "row":
        return rough_rows(share_of_some(weight))
    table = layout.byte_table
    return "" if table is None or table.share <= MAX_SHARE else _too_much("its table", table.share)


def _too_much(what: str, share: float) -> str:
    return f"8 bits would round {what} by {share:.2g} times the error that its codes make (at most {MAX_SHARE:g})"


def rough_rows(share: float) -> str:
    """Why tables of rows must not be rounded to 8 bits, of which one has this share; empty where they may."""
    return "" if share <= MAX_SHARE else _too_much("a row's table", share)


def _codes_fit(layout: Layout, kind: Kind) -> bool:
    zero = layout.zero if isinstance(layout.zero, int) else None
    has_minima = layout.minimum is not None or zero is None
    if layout.table is not None:
        wide, of = kind.codes == SIGNED and kind.bits == 8, ROW_TABLE if layout.table == "row" else TABLE
        return not has_minima and (wide or (kind.codes == of and layout.bits <= kind.bits))
    if kind.codes == ROW_TABLE:
        return False
    most = (1 << layout.bits) - 1
    if kind.codes == UNSIGNED:
        return layout.bits <= kind.bits
    if has_minima or zero is None or not -128 <= -zero <= most - zero <= 127:
        return False
    if kind.codes == TABLE:
        return layout.bits <= kind.bits
    if kind.codes == TERNARY:
        return layout.ternary
    if kind.codes == PAIRS:
        return layout.two_of_four and -zero >= -8 and most - zero < 8
    return -zero >= -1 << (kind.bits - 1) and most - zero < 1 << (kind.bits - 1)


def _scales_fit(layout: Layout, kind: Kind, n_cols: int) -> bool:
    levels = [scale for scale in (layout.scale, layout.minimum) if scale is not None]
    if any((span := _span(layout, scale, n_cols)) % kind.group and span < n_cols for scale in levels):
        return False  # the last group may have fewer columns, so that of a whole row fits any
    if kind.scales in (HALF, BFLOAT):
        return True
    if n_cols % SUPER:
        return False
    if kind.scales == ONE:
        return layout.scale.times is None and _span(layout, layout.scale, n_cols) % SUPER == 0
    if kind.codes == UNSIGNED and layout.minimum is None:
        return False
    return all(
        _is_whole(layout, scale, n_cols, *ends) for scale, ends in zip(levels, RANGES[kind.scales], strict=False)
    )


def _is_whole(layout: Layout, scale: Scale, n_cols: int, least: int, most: int) -> bool:
    """Whether a scale is a whole number in a range times one for at least `SUPER` columns."""
    if scale.kind not in ("uint", "int") or abs(scale.factor) != 1 or scale.times is None:
        return False
    width = scale.runs[0].width if scale.runs else 8
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if scale.kind == "int" else (0, (1 << width) - 1)
    low, high = low - scale.less, high - scale.less
    return least <= low and high <= most and _span(layout, scale.times, n_cols) % SUPER == 0


def _span(layout: Layout, scale: Scale, n_cols: int) -> int:
    """Columns that share a scale."""
    return n_cols if scale.per == "row" else scale.per or layout.group
