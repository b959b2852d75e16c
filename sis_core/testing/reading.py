"""Rows as the layout of a format reads them, and how else they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import F32, F64, U8
from sis_core.errors import FormatError
from sis_core.guarded import unpacked
from sis_core.layout import Layout, Scale, Unpacked
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing.block_parts import Part, parts_of, tried_parts

Altered: TypeAlias = Iterator[tuple[str, Layout, Unpacked]]
"""Readings of the same rows, each with what is altered in words."""

OFF = "a scale is off, or one that it is multiplied by is forgotten"  # in the words of whatever only changes the size


@frozen(eq=False)
class Read:
    """Rows ``(n_rows, row_bytes)`` as the layout of a format reads them."""

    format: QuantFormat
    layout: Layout
    rows: U8
    unpacked: Unpacked

    @property
    def by_layout(self) -> bool:
        """Whether the layout alone says where numbers lie, so that it can be made to read them elsewhere."""
        return type(self.format).unpack is QuantFormat.unpack and self.layout.codes is not None

    @property
    def units(self) -> U8:
        """The bytes of each block, or of each row of a format that is not one of blocks: ``(n, n_bytes)``."""
        in_blocks = self.by_layout or isinstance(self.format, BlockFormat)
        return self.rows.reshape(-1, self.format.type_size if in_blocks else self.rows.shape[1])

    @cached_property
    def parts(self) -> list[Part]:
        """Which bytes of such a unit are read as what; empty where parts of one sort lie apart."""
        if self.by_layout:
            return parts_of(self.layout, self.format)
        n_values = self.unpacked.codes.size // len(self.units)
        return tried_parts(self.format, self.units[0], n_values) if self.rows.size else []

    def again(self, words: str, layout: Layout, units: U8 | None = None) -> Altered:
        """Read by another layout, or other units; nothing where these cannot be read."""
        given = self.units if units is None else units
        try:
            if self.by_layout:
                found = layout.unpack_blocks(given, self.format.block_size, len(self.rows))
            else:
                found = unpacked(self.format, given.reshape(self.rows.shape), self.unpacked.codes.shape[1])
        except FormatError:
            return
        yield words, layout, found

    def replaced(self, words: str, old: Scale, new: Scale) -> Altered:
        """Read with another scale in the place of one of the layout's."""
        for name in ("scale", "minimum", "zero"):
            scale = getattr(self.layout, name)
            if scale is old:
                changes: dict[str, Any] = {name: new}
            elif isinstance(scale, Scale) and scale.times is old:
                changes = {name: evolve(scale, times=new)}
            else:
                continue
            return self.again(words, evolve(self.layout, **changes))
        raise AssertionError("not a scale of the layout")


def own_values(layout: Layout, unpacked: Unpacked) -> F32:
    """The tensor's own values, as `QuantFormat.dequantize` gives them by default."""
    values = layout.values(unpacked)
    return layout.transform.own(values) if layout.transform else values


def for_each_value(numbers: F32, n_cols: int) -> F64:
    """Scales or minima ``(n_rows, n)`` of neighbours that share them, for each value: float64 ``(n_rows, n_cols)``."""
    return np.repeat(numbers, n_cols // numbers.shape[1], axis=1).astype(np.float64)


def relative_error(found: F32 | F64, values: F32) -> float:
    """Root mean square, relative to that of the values; infinite where there is no number."""
    squares = ((found.astype(np.float64) - values) ** 2).sum() / (values.astype(np.float64) ** 2).sum()
    return float(np.sqrt(squares)) if np.isfinite(squares) else np.inf
