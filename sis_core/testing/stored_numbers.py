"""Scales and minima in the right bytes, that are taken for another kind of number, or with their bytes turned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from attrs import evolve

from sis_core.arrays import U8
from sis_core.fields import FLOAT_BYTES, Bits, Kind, read_numbers
from sis_core.layout import Scale
from sis_core.testing.reading import Altered, Read

NEAR = 4  # bytes from either end of a row
TURNED = " with the higher byte first"


def stored_otherwise(read: Read) -> Altered:
    """Numbers that are stored otherwise than the layout says, or than a format's own `unpack` reads them."""
    if read.by_layout:
        yield from _declared(read)
        return
    yield from _unpacked(read)
    yield from _all_unpacked(read)


def _declared(read: Read) -> Altered:
    """Numbers of each level that are stored otherwise than the layout says."""
    for name, scale in read.layout.levels():
        size = FLOAT_BYTES.get(scale.kind, scale.runs[0].bits // 8 if scale.runs[0].bits % 8 == 0 else 0)
        kinds = [kind for kind, n in FLOAT_BYTES.items() if n == size] + (["uint", "int"] if size == 1 else [])
        for kind in kinds:
            if kind != scale.kind:
                stored = evolve(scale, kind=cast("Kind", kind), at=scale.runs)
                yield from read.replaced(
                    f"the {name} is {kind} to the {{other}}, {scale.kind} to the layout", scale, stored
                )
        if scale.less:
            words = f"the {{other}} takes the {name} as it is stored, the layout less {scale.less}"
            yield from read.replaced(words, scale, evolve(scale, less=0))
        if scale.factor != 1:
            words = f"the {{other}} takes the {name} as it is stored, the layout times {scale.factor:g}"
            yield from read.replaced(words, scale, evolve(scale, factor=1.0))
        if scale.kind in FLOAT_BYTES and size > 1:
            words = f"the {name} has its higher byte first to the {{other}}"
            yield from read.again(words, read.layout, _turned(read, read.units, scale))
    wide = [(name, scale) for name, scale in read.layout.levels() if FLOAT_BYTES.get(scale.kind, 0) > 1]
    if len(wide) > 1:
        swapped = read.units
        for _, scale in wide:
            swapped = _turned(read, swapped, scale)
        words = f"{' and '.join(name for name, _ in wide)} have their higher bytes first to the {{other}}"
        yield from read.again(words, read.layout, swapped)


def _turned(read: Read, units: U8, scale: Scale) -> U8:
    """``units`` with the bytes of these floats turned."""
    swapped, n = units.copy(), scale.count(read.format.block_size, read.layout.group)
    size = FLOAT_BYTES[scale.kind]
    for run in scale.runs:
        places = run.at + np.arange(n // len(scale.runs)) * run.step // 8
        for i in range(size):
            swapped[:, places + i] = units[:, places + size - 1 - i]
    return swapped


def _unpacked(read: Read) -> Altered:
    """What an author's own `unpack` reads, each by itself as every kind of float."""
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


def _all_unpacked(read: Read) -> Altered:
    """Scales and minima both, as another kind of float or with their bytes turned."""
    parts = {part.name: part for part in read.parts}
    scale, minimum, now = parts.get("scale"), parts.get("minimum"), read.unpacked
    if scale is None or minimum is None or read.layout.minimum is None or now.minima is None:
        return
    of_each = (("scales", scale, read.layout.scale), ("minima", minimum, read.layout.minimum))
    for kind, size in FLOAT_BYTES.items():
        if scale.size * len(read.units) != now.scales.size * size or scale.size != minimum.size:
            continue
        for turned in (False, True)[: 1 + (size > 1)]:
            changes: dict[str, Any] = {}
            for field, part, said in of_each:
                raw = read.units[:, part.start : part.start + part.size]
                found = _floats(kind, _swapped(raw, size) if turned else raw, part.size // size)
                changes[field] = ((found - said.less) * said.factor).reshape(now.scales.shape).astype(np.float32)
            words = f"scale and minimum are {kind}{TURNED * turned} to the {{other}}, and something else to unpack"
            yield words, read.layout, evolve(now, **changes)


def _floats(kind: str, raw: U8, n: int) -> np.ndarray[Any, Any]:
    return read_numbers(cast("Kind", kind), (Bits(0, 8 * FLOAT_BYTES[kind]),), raw, n)


def _swapped(raw: U8, size: int) -> U8:
    """``raw`` ``(n, n_bytes)`` with each ``size`` bytes turned."""
    return np.ascontiguousarray(raw.reshape(len(raw), -1, size)[:, :, ::-1]).reshape(raw.shape)


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
            yield f"{kind}{place}", _floats(kind, raw, n)
            if size > 1:
                yield f"{kind}{place}{TURNED}", _floats(kind, _swapped(raw, size), n)
