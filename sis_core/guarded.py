"""Formats that may be a stranger's, held to the contract: what one raises or returns is told as its own fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FOREIGN, FormatError, SisError
from sis_core.layout import Layout
from sis_core.unpacked import Unpacked

if TYPE_CHECKING:
    from sis_core.quant import QuantFormat

DAMAGED = "the file is damaged, or the format reads the wrong bytes: see sis_core.testing.check_quant_format"
REPORT = "report it to the author of the format, or check it with sis_core.testing.check_quant_format"


def check_declared(cls: type[QuantFormat]) -> None:
    """FormatError, naming the format, for a layout that is none, and sizes that are no numbers."""
    name, layout = getattr(cls, "name", cls.__name__), cls.layout
    if not isinstance(layout, Layout):
        raise FormatError(
            f"its layout is {layout!r}", where=name, fix="give a Layout, such as Layout(4, 32, Scale('f16', at=0), …)"
        )
    for size in ("block_size", "type_size"):
        value: Any = getattr(cls, size)
        if type(value) is not int or value < 1:
            raise FormatError(f"its {size} is {value!r}", where=name, fix="give a whole number from 1 on")


def unpacked(format: QuantFormat, rows: U8, n_cols: int, where: str = "") -> Unpacked:
    """`QuantFormat.unpack` by a format that may be a stranger's, held to its layout.

    Args:
        where: the tensor whose rows they are, for messages.

    Raises:
        FormatError: naming the format, which of its promises it broke, and where.
    """
    place = f"{where} in {format.name}" if where else format.name
    try:
        found = format.unpack(rows, n_cols)
        format._layout().check_unpacked(found, len(rows), n_cols)
    except FormatError as error:
        raise FormatError(error.what, where=place, fix=error.fix) from None
    except (SisError, MemoryError):
        raise
    except FOREIGN as error:
        raise FormatError(f"unpack failed: {type(error).__name__}: {error}", where=place, fix=REPORT) from error
    return found


def decoded(format: QuantFormat, rows: U8, n_cols: int, where: str) -> F32:
    """`QuantFormat.dequantize` by a format that may be a stranger's; FormatError naming it when it misbehaves."""
    try:
        values = format.dequantize(rows, n_cols)
    except FormatError as error:
        raise FormatError(error.what, where=f"{where} in {format.name}", fix=error.fix) from None
    except (SisError, MemoryError):
        raise
    except FOREIGN as error:
        raise FormatError(
            f"format {format.name} failed to decode: {type(error).__name__}: {error}", where=where, fix=REPORT
        ) from error
    if values.dtype != np.float32 or values.shape != (len(rows), n_cols):
        raise FormatError(
            f"format {format.name} returned {values.dtype} {values.shape}, not float32 {(len(rows), n_cols)}",
            where=where,
            fix=REPORT,
        )
    return values
