"""Rows of a weight as numbers: what a declared layout's bytes hold, and what an author's own `unpack` must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError

if TYPE_CHECKING:
    from sis_core.layout import Layout


@frozen(eq=False)
class Unpacked:
    """Rows of a weight as numbers: what `Layout.values` reads, and what native backends pack.

    How many values share a scale is seen from its shape: in ``(n_rows, k)`` each is that of ``n_cols / k`` neighbouring
    columns, so that ``(n_rows, 1)`` is one for a row.

    Attributes:
        codes: uint8 ``(n_rows, n_cols)``, each below ``2 ** bits``.
        scales: float32 ``(n_rows, k)``; the lower of two levels where the layout's scale has ``times``.
        minima: float32 ``(n_rows, k)`` in the same way, or None. Where the layout has a zero for each group they are
            ``-scale * zero``: codes stand for themselves then.
        super_scales, super_minima: float32 ``(n_rows, k)``: the upper levels, or None.
        tables: float32 ``(n_rows, 2 ** bits)``, where the layout's table is ``"row"``.
    """

    codes: U8
    scales: F32
    minima: F32 | None = None
    super_scales: F32 | None = None
    super_minima: F32 | None = None
    tables: F32 | None = None

    def combined_scales(self) -> F32:
        """Both levels multiplied: float32 ``(n_rows, k)``."""
        return times(self.scales, self.super_scales)

    def combined_minima(self) -> F32 | None:
        """Both levels multiplied: float32 ``(n_rows, k)``, or None."""
        return None if self.minima is None else times(self.minima, self.super_minima)


def times(numbers: F32, upper: F32 | None) -> F32:
    """The product of ``(n_rows, k)`` and ``(n_rows, l)``, each for its share of the row: of the larger shape."""
    if upper is None:
        return numbers
    n = max(numbers.shape[1], upper.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        both = [np.repeat(some, n // some.shape[1], axis=1) for some in (numbers, upper)]
        return np.asarray(both[0] * both[1], np.float32)


def check_unpacked(layout: Layout, unpacked: Unpacked, n_rows: int, n_cols: int) -> None:
    """`Layout.check_unpacked`: FormatError that says what of these numbers is wrong, and where."""
    if not isinstance(unpacked, Unpacked):
        raise FormatError(f"unpack gives {type(unpacked).__name__}, not Unpacked", fix=_GIVE["unpacked"])
    codes = unpacked.codes
    _check_array("codes", codes, np.uint8, (n_rows, n_cols))
    if layout.bits < 8 and codes.size and int(codes.max()) >> layout.bits:
        row, column = np.unravel_index(int(codes.argmax()), codes.shape)
        raise FormatError(
            f"unpack gives codes[{row}, {column}] = {codes[row, column]}, but with bits = {layout.bits} they are at "
            f"most {(1 << layout.bits) - 1}",
            fix=_GIVE["codes"],
        )
    if layout.two_of_four and (n_cols % 4 or int((codes.reshape(-1, 4) != layout.zero).sum(1).max(initial=0)) > 2):
        raise FormatError(
            "unpack gives more than two of four codes that do not stand for 0",
            fix=f"of four neighbours let two be {layout.zero}, or leave two_of_four out of the layout",
        )
    if layout.ternary and codes.size and int(codes.max()) > 2:
        row, column = np.unravel_index(int(codes.argmax()), codes.shape)
        raise FormatError(
            f"unpack gives codes[{row}, {column}] = 3, but they are ternary",
            fix="let codes be 0, 1 and 2, or leave ternary out of the layout",
        )
    for name in ("scales", "minima", "super_scales", "super_minima"):
        numbers = getattr(unpacked, name)
        if numbers is not None or name == "scales":
            k = numbers.shape[1] if isinstance(numbers, np.ndarray) and numbers.ndim == 2 else 0
            _check_array(name, numbers, np.float32, (n_rows, k if k and n_cols % k == 0 else n_cols // layout.group))
    for lower, upper in ((unpacked.scales, unpacked.super_scales), (unpacked.minima, unpacked.super_minima)):
        if upper is not None and (lower is None or lower.shape[1] % upper.shape[1]):
            raise FormatError(
                "unpack gives an upper level that is no multiple of the lower one, or stands alone",
                fix="give the lower level in scales and minima, for whole shares of an upper number each",
            )
    if (unpacked.tables is not None) != (layout.table == "row"):
        raise FormatError(
            "unpack gives tables where the layout's table is not 'row', or the other way round",
            fix="give tables exactly where the layout says table='row'",
        )
    if unpacked.tables is not None:
        _check_array("tables", unpacked.tables, np.float32, (n_rows, 1 << layout.bits))


def not_finite(unpacked: Unpacked, first_row: int = 0) -> str:
    """The first scale or minimum that is no number, such as ``scales[0, 3] is nan``; empty where all are.

    Args:
        first_row: of the weight, where these are not all of its rows.
    """
    for name in ("scales", "minima", "super_scales", "super_minima"):
        numbers: F32 | None = getattr(unpacked, name)
        if numbers is not None and not np.isfinite(numbers).all():
            row, column = np.argwhere(~np.isfinite(numbers))[0]
            return f"{name}[{first_row + row}, {column}] is {numbers[row, column]}"
    return ""


def _check_array(name: str, found: Any, dtype: type, shape: tuple[int, int]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
        given = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        wanted = f"{np.dtype(dtype)} {shape}"
        raise FormatError(f"unpack gives {name} as {given}, not {wanted}", fix=_GIVE.get(name, _GIVE["scales"]))


_GIVE = {
    "unpacked": "return Unpacked(codes, scales), with minima and tables where the layout has them",
    "codes": "give each value's code as uint8, counted from 0: the layout's zero or table says what it stands for",
    "scales": "give a number for each group, or for any whole share of a row, as float32",
    "tables": "give each row's table, a number for each code, as float32",
}
