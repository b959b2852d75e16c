"""Scales and minima that an author's own `unpack` finds in the right bytes, and takes for another kind of number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from attrs import evolve

from sis_core.arrays import U8
from sis_core.fields import FLOAT_BYTES, Bits, Kind, read_numbers
from sis_core.testing.reading import Altered, Read


def stored_otherwise(read: Read) -> Altered:
    """Floats as the layout says and as it does not, and with their bytes turned."""
    if read.by_layout:
        return
    for name, field, scale in (("scale", "scales", read.layout.scale), ("minimum", "minima", read.layout.minimum)):
        part = next((part for part in read.parts if part.name == name), None)
        numbers = getattr(read.unpacked, field)
        if scale is None or part is None or numbers is None:
            continue
        n = numbers.size // len(read.units)  # of each unit
        size, rest = divmod(part.size, max(n, 1))
        if rest:
            continue
        raw = read.units[:, part.start : part.start + part.size].reshape(len(read.units), n, size)
        every = {
            words: ((found - scale.less) * scale.factor).reshape(numbers.shape).astype(np.float32)
            for words, found in _readings(raw)
        }
        own = next((words for words, found in every.items() if np.allclose(found, numbers, equal_nan=True)), "another")
        for words, found in every.items():
            changes: dict[str, Any] = {field: found}
            shown = f"the {name} is {words} to the {{other}} and {own} to unpack"
            yield shown, read.layout, evolve(read.unpacked, **changes)


def _readings(raw: U8) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Bytes ``(n_units, n, size)`` as each kind of float of that size, in words: ``(n_units, n)``."""
    n_units, n, size = raw.shape
    for kind, n_bytes in FLOAT_BYTES.items():
        if n_bytes != size:
            continue
        run = (Bits(0, 8 * size),)
        yield kind, read_numbers(cast("Kind", kind), run, raw.reshape(n_units, -1), n)
        if size > 1:
            turned = np.ascontiguousarray(raw[:, :, ::-1]).reshape(n_units, -1)
            yield f"{kind} with the higher byte first", read_numbers(cast("Kind", kind), run, turned, n)
