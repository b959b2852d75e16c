"""Which bytes of a block or a row a format reads as what."""

from __future__ import annotations

import numpy as np
from attrs import evolve, frozen

from sis_core.arrays import U8
from sis_core.errors import FOREIGN
from sis_core.fields import Bits
from sis_core.layout import Layout
from sis_core.quant import QuantFormat


@frozen
class Part:
    """Neighbouring bytes of a block that hold numbers of one sort, or of some that share bytes; or none, nameless."""

    name: str
    start: int
    size: int


def parts_of(layout: Layout, format: QuantFormat) -> list[Part]:
    """All bytes of a block, in order; empty where numbers of one sort lie apart."""
    owners: list[set[str]] = [set() for _ in range(format.type_size)]
    for name, runs, n in layout.parts(format.block_size):
        for run in runs:
            for shown, places in _of_run(f"{name}s" if name == "code" else name, run, n // len(runs)):
                for byte in np.unique(places // 8).tolist():
                    owners[byte].add(shown)
    return _joined(owners)


def tried_parts(format: QuantFormat, unit: U8, n_values: int) -> list[Part]:
    """The same of a row, or a block, whose numbers an `unpack` of the format's own finds: by changing each byte.

    Empty too where unpack fails at that, or a byte changes nothing.
    """
    changed = np.repeat(unit[None], len(unit) + 1, axis=0)
    np.fill_diagonal(changed, unit ^ 0x11)  # the last row is as it was
    try:
        found = format.unpack(changed, n_values)
    except FOREIGN:
        return []
    owners: list[set[str]] = [set() for _ in unit]
    for name in ("codes", "tables", "super_scales", "super_minima", "scales", "minima"):
        numbers = getattr(found, name)
        if numbers is None:
            continue
        for byte in np.flatnonzero((numbers[:-1] != numbers[-1]).any(axis=1)).tolist():
            owners[byte] = owners[byte] or {_NAMES[name]}  # zeros for each group change with their scales
    return _joined(owners) if all(owners) else []


_NAMES = {
    "codes": "codes", "tables": "table", "scales": "scale", "minima": "minimum",
    "super_scales": "scale of the upper level", "super_minima": "minimum of the upper level",
}  # fmt: skip


def _joined(owners: list[set[str]]) -> list[Part]:
    """Neighbouring bytes of the same owners as one part."""
    parts: list[Part] = []
    for byte, names in enumerate(owners):
        name = " and ".join(sorted(names))
        if parts and parts[-1].name == name:
            parts[-1] = evolve(parts[-1], size=parts[-1].size + 1)
        else:
            parts.append(Part(name, byte, 1))
    names_of = [name for part in parts for name in part.name.split(" and ") if name]
    return parts if len(set(names_of)) == len(names_of) else []


def free_bytes(layout: Layout, format: QuantFormat) -> range:
    """The bytes of which a layout says nothing, where these are neighbours; else none."""
    free = [part for part in parts_of(layout, format) if not part.name]
    return range(free[0].start, free[0].start + free[0].size) if len(free) == 1 else range(0)


def _of_run(name: str, run: Bits, n: int) -> list[tuple[str, np.ndarray]]:
    own = [(name, evolve(run, high=None).places(n))]
    return own + (_of_run(f"high bits of {name.removeprefix('high bits of ')}", run.high, n) if run.high else [])
