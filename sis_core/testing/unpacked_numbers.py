"""Scales and minima that an author's own `unpack` finds in the right bytes, and takes for another kind of number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from attrs import evolve

from sis_core.fields import FLOAT_BYTES, Bits, Kind, read_numbers
from sis_core.testing.reading import Altered, Read


def stored_otherwise(read: Read) -> Altered:
    """Floats as the layout says and as it does not, and with their bytes turned."""
    if read.by_layout:
        return
    for name, field, scale in (("scale", "scales", read.layout.scale), ("minimum", "minima", read.layout.minimum)):
        numbers = getattr(read.unpacked, field)
        if scale is None or numbers is None:
            continue
        every = {
            words: ((found - scale.less) * scale.factor).reshape(numbers.shape).astype(np.float32)
            for words, found in _readings(read, name, numbers.size // len(read.units))
        }
        own = next((w for w, found in every.items() if np.allclose(found, numbers, equal_nan=True)), "something else")
        for words, found in every.items():
            changes: dict[str, Any] = {field: found}
            shown = f"the {name} is {words} to the {{other}} and {own} to unpack"
            yield shown, read.layout, evolve(read.unpacked, **changes)


def _readings(read: Read, name: str, n: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The bytes that are read as these ``n`` numbers of each unit as every kind of float, in words: ``(n_units, n)``.

    Where a unit has one such number, so are the first bytes and the last ones.
    """
    units = read.units
    part = next((part for part in read.parts if part.name == name), None)
    for kind, size in FLOAT_BYTES.items():
        starts = {part.start: ""} if part is not None and part.size == n * size else {}
        if n == 1:
            last = units.shape[1] - size
            starts |= {at: f" at byte {at}" for at in {*range(NEAR), *range(last - NEAR, last + 1)} if 0 <= at <= last}
        for at, place in starts.items():
            raw = units[:, at : at + n * size]
            yield f"{kind}{place}", read_numbers(cast("Kind", kind), (Bits(0, 8 * size),), raw, n)
            if size > 1:
                turned = np.ascontiguousarray(raw.reshape(-1, n, size)[:, :, ::-1]).reshape(raw.shape)
                words = f"{kind}{place} with the higher byte first"
                yield words, read_numbers(cast("Kind", kind), (Bits(0, 8 * size),), turned, n)


NEAR = 4  # bytes from either end of a row
