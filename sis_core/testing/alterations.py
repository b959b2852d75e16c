"""The usual mistakes in a layout: what the bytes may be to a decoder or an encoder that are otherwise to the layout.

Each is a named alteration of how rows are read. The one is named that makes the layout's numbers those of a format's
own decoder, or of what its encoder was given. In their words ``{other}`` is whichever of the two that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.fields import MAX_BITS, Bits, as_runs
from sis_core.layout import Layout, Scale
from sis_core.quant import BlockFormat
from sis_core.testing.base_three import digits
from sis_core.testing.bit_order import from_the_top
from sis_core.testing.block_parts import Part, free_bytes
from sis_core.testing.reading import OFF, Altered, Read, own_values
from sis_core.testing.stored_numbers import stored_otherwise
from sis_core.transform import Hadamard, PerColumn

FACTORS = (2, 0.5, 4, 0.25, 127, 1 / 127, 128, 1 / 128, 7, 1 / 7, 8, 1 / 8, 15, 1 / 15)
ALIKE = 1e-4  # of the largest level: by so much those of a symmetric table may differ
FEW = 5  # parts of a block: of more, not every order is tried


def altered(read: Read) -> Iterator[tuple[str, F32]]:
    """Every alteration, in words, and the values that it gives."""
    for alteration in ALTERATIONS:
        for words, layout, unpacked in alteration(read):
            yield words, own_values(layout, unpacked)


# -- codes ---------------------------------------------------------------------------------------------------------


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
    for n in (4, 8, 16):
        if size % n == 0 and 2 * n < size:
            yield f"each block is transposed, as {n} rows of {size // n}", index.reshape(n, -1).T.reshape(-1)


def _ordered(read: Read, codes: U8) -> Iterator[tuple[str, U8]]:
    """Codes, or bits of them, in every mistaken order."""
    n_rows, n_cols = codes.shape
    whole = () if isinstance(read.format, BlockFormat) else (n_cols,)
    sizes = {
        size
        for size in (read.format.block_size, read.layout.group, 64, 32, 16, *whole)
        if size > 1 and n_cols % size == 0
    }
    for size in sorted(sizes, key=lambda size: (size != read.format.block_size, -size)):
        for words, order in orders(size):
            yield f"in every {size} values {words}", codes.reshape(n_rows, -1, size)[:, :, order].reshape(codes.shape)


def _order(read: Read) -> Altered:
    for words, codes in _ordered(read, read.unpacked.codes):
        yield words, read.layout, evolve(read.unpacked, codes=codes)


def _high_bits(read: Read) -> Altered:
    """The bits above the others in another order than these, or these in another than they."""
    bits, codes = read.layout.bits, read.unpacked.codes
    said = {run.bits for run in as_runs(read.layout.codes) if run.high}
    for low in sorted(said if read.by_layout else {bits - 2, bits - 1} if bits > 4 else ()):
        rest, above = codes & np.uint8((1 << low) - 1), codes >> np.uint8(low)
        higher, lower = f"of the bits above the lowest {low} of each code", f"of the lowest {low} bits of each code"
        for words, high in _ordered(read, above):
            yield f"{higher}, {words}", read.layout, evolve(read.unpacked, codes=rest | high << np.uint8(low))
        for words, least in _ordered(read, rest):
            yield f"{lower}, {words}", read.layout, evolve(read.unpacked, codes=least | above << np.uint8(low))


def _left_out(read: Read) -> Altered:
    """Bits above the codes, in bytes of which the layout says nothing."""
    layout, free = read.layout, free_bytes(read.layout, read.format) if read.by_layout else range(0)
    more, rest = divmod(8 * len(free), read.format.block_size)
    runs = as_runs(layout.codes)
    if rest or not 1 <= more <= MAX_BITS - layout.bits or any(run.high for run in runs) or layout.table is not None:
        return
    size = len(free) // len(runs)
    wide = tuple(evolve(run, high=Bits(free.start + i * size, more)) for i, run in enumerate(runs))
    zeros = [layout.zero << more, layout.zero] if isinstance(layout.zero, int) else [layout.zero]
    words = f"codes have {more} more bits to the {{other}}, in bytes {free[0]} to {free[-1]}, unknown to the layout"
    for zero in zeros:
        yield from read.again(words, evolve(layout, bits=layout.bits + more, codes=wide, zero=zero, ternary=False))


def is_symmetric(layout: Layout) -> bool:
    """Whether a table in reverse order is the same as one with the other sign."""
    table = np.asarray(layout.table if isinstance(layout.table, tuple) else [0])
    return bool(np.abs(table + table[::-1]).max() < ALIKE * np.abs(table).max())


def or_reversed(layout: Layout) -> str:
    """What else the other sign may be, in words: of a symmetric table nobody can tell."""
    return ", or the table is in reverse order, which is the same for one that is symmetric" * is_symmetric(layout)


def _counting(read: Read) -> Altered:
    """Codes that stand for other numbers of the same row of numbers."""
    layout, unpacked, codes = read.layout, read.unpacked, read.unpacked.codes
    if layout.table is None and isinstance(layout.zero, int):
        for zero in range(-1, 1 << layout.bits):
            if zero != layout.zero:
                words = f"the {{other}} counts codes from {zero}, not from {layout.zero}"
                yield words, evolve(layout, zero=zero, two_of_four=False, ternary=False), unpacked
    if isinstance(layout.table, tuple):
        if not is_symmetric(layout):
            yield "the table is in reverse order", evolve(layout, table=layout.table[::-1]), unpacked
        for by in (1, -1):
            yield "codes are off by one in the table", evolve(layout, table=np.roll(layout.table, by)), unpacked
    for by, words in ((1, "less"), (-1, "more")):
        moved = np.clip(codes.astype(np.int16) - by, 0, (1 << layout.bits) - 1).astype(np.uint8)
        yield f"codes are one {words} to the {{other}} than to the layout", layout, evolve(unpacked, codes=moved)
    sign = np.uint8(1 << (layout.bits - 1))
    yield (
        "one of them takes codes for numbers in two's complement, the other for numbers from zero",
        layout,
        evolve(unpacked, codes=codes ^ sign),
    )


# -- scales and minima ---------------------------------------------------------------------------------------------


def _signs(read: Read) -> Altered:
    layout, unpacked, minima = read.layout, read.unpacked, read.unpacked.minima
    negative = None if minima is None else -minima
    words = f"values have the other sign{or_reversed(layout)}"
    yield words, layout, evolve(unpacked, scales=-unpacked.scales, minima=negative)
    if minima is not None:
        yield "the layout adds a minimum that the {other} subtracts", layout, evolve(unpacked, minima=negative)
        yield "only the layout adds a minimum", layout, evolve(unpacked, minima=np.zeros_like(minima))
        yield "the scale has the other sign", layout, evolve(unpacked, scales=-unpacked.scales)


def _exchanged(read: Read) -> Altered:
    """Scales for minima, of both levels or of one; in what an author unpacked the sign of minima may be in either."""
    layout, now = read.layout, read.unpacked
    if now.minima is None:
        return
    of_scale, of_minimum = layout.scale, layout.minimum or Scale("f16")
    turn = np.float32(of_minimum.factor / of_scale.factor)
    lower: dict[str, Any] = {"scales": now.minima / turn, "minima": now.scales * turn}
    if now.super_scales is None or now.super_minima is None:
        if now.super_scales is None and now.super_minima is None:
            yield "scale and minimum are exchanged", layout, evolve(now, **lower)
            other: dict[str, Any] = {"scales": -lower["scales"], "minima": -lower["minima"]}
            yield "scale and minimum are exchanged, signs too", layout, evolve(now, **other)
        return
    upper: dict[str, Any] = {"super_scales": now.super_minima, "super_minima": now.super_scales}
    yield "scale and minimum are exchanged, on both levels", layout, evolve(now, **lower, **upper)
    yield "the lower scales and minima are exchanged", layout, evolve(now, **lower)
    yield "the upper scales and minima are exchanged", layout, evolve(now, **upper)


def _order_of_groups(read: Read) -> Altered:
    """Scales and minima, or one of them, of other groups of a block."""
    layout, unpacked = read.layout, read.unpacked
    n_cols = unpacked.codes.shape[1]
    for by, words in ((1, "before"), (-1, "behind")):
        if unpacked.scales.shape[1] > 1:
            other = evolve(unpacked, scales=np.roll(unpacked.scales, by, axis=1))
            yield f"the {{other}} takes the scale of the group {words} each", layout, other
    levels = {"scales": unpacked.scales, "minima": unpacked.minima}
    for names in (("scales", "minima"), ("scales",), ("minima",)):
        some = {name: numbers for name in names if (numbers := levels[name]) is not None}
        n, rest = divmod(unpacked.scales.shape[1] * read.format.block_size, n_cols)
        if len(some) < len(names) or rest or n < 2 or len({numbers.shape for numbers in some.values()}) > 1:
            continue
        for words, order in _orders_of_groups(n):
            moved: dict[str, Any] = {name: _ordered_groups(v, n, order) for name, v in some.items()}
            shown = f"the {' and '.join(names)} of each {read.format.block_size} values are {words}"
            yield shown, layout, evolve(unpacked, **moved)


def _ordered_groups(numbers: F32, n: int, order: np.ndarray) -> F32:
    return numbers.reshape(len(numbers), -1, n)[:, :, order].reshape(numbers.shape)


def _orders_of_groups(n: int) -> Iterator[tuple[str, np.ndarray]]:
    index = np.arange(n)
    yield "in reverse order", index[::-1]
    if n % 2 == 0 and n > 2:
        yield "exchanged two by two", index ^ 1
        yield (
            "neighbours to one side and half a block apart to the other",
            (pairs := index.reshape(-1, 2).T.reshape(-1)),
        )
        yield "half a block apart to one side and neighbours to the other", np.argsort(pairs)


def one_off(read: Read) -> Altered:
    """Whole scales, minima or zeros that are one more or less to whoever wrote or reads them."""
    layout, now = read.layout, read.unpacked
    whole = [
        (name, field, scale)
        for name, field, scale in (("scales", "scales", layout.scale), ("minima", "minima", layout.minimum))
        if scale is not None and scale.kind in ("uint", "int") and getattr(now, field) is not None
    ]
    for by, words in ((1, "more"), (-1, "less")):
        for some in ([whole] if len(whole) == 2 else []) + [[each] for each in whole]:
            moved: dict[str, Any] = {
                field: getattr(now, field) + np.float32(by * scale.factor) for _, field, scale in some
            }
            names = " and ".join(name for name, _, _ in some)
            shown = (
                f"{'lower ' if layout.scale.times else ''}{names} are one {words} to the {{other}} than to the layout"
            )
            yield shown + _remedy(read, [scale for _, _, scale in some], by), layout, evolve(now, **moved)
        if now.minima is not None and isinstance(layout.zero, Scale):
            scales = now.combined_scales()
            step = np.repeat(scales, now.minima.shape[1] // scales.shape[1], axis=1)
            shown = f"zeros are one {words} to the {{other}} than to the layout{_remedy(read, [layout.zero], by)}"
            yield shown, layout, evolve(now, minima=now.minima - np.float32(by) * step)


def _remedy(read: Read, scales: list[Scale], by: int) -> str:
    """What a layout would say instead; an unpack of the format's own is not a layout's to mend."""
    less = " and ".join(f"less={scale.less - by}" for scale in scales)
    return f": give {'them' if len(scales) > 1 else 'it'} {less}, if the {{other}} is right" if read.by_layout else ""


def _size(read: Read) -> Altered:
    scales, minima = read.unpacked.scales, read.unpacked.minima
    for factor in map(np.float32, FACTORS):
        many = evolve(read.unpacked, scales=scales * factor, minima=None if minima is None else minima * factor)
        yield f"the {{other}}'s values are {factor:.4g} times as large: {OFF}", read.layout, many


def _groups(read: Read) -> Altered:
    """Numbers that more or fewer values share."""
    layout, format, group = read.layout, read.format, 4
    while read.by_layout and group <= format.block_size:
        if group != layout.group:
            words = f"{group} values share a scale to the {{other}}, {layout.group} to the layout"
            other = evolve(layout, group=group)
            try:
                other.check(format.block_size, format.type_size)
            except FormatError:  # no room for so many
                pass
            else:
                yield from read.again(words, other)
        group *= 2


# -- the whole block -----------------------------------------------------------------------------------------------


def _places(read: Read) -> Altered:
    """The parts of a block, or of a row, one behind the other in another order."""
    unit = "block" if read.units.shape[1] == read.format.type_size else "row"
    for order in _orders_of_parts(read.parts):
        starts, at = {}, 0
        for part in order:
            starts[part.start] = at
            at += part.size
        index = np.concatenate([starts[part.start] + np.arange(part.size) for part in read.parts])
        moved = [f"the {p.name} at byte {starts[p.start]}" for p in order if p.name and starts[p.start] != p.start]
        yield from read.again(f"to the {{other}} a {unit} has {' and '.join(moved)}", read.layout, read.units[:, index])


def _orders_of_parts(parts: list[Part]) -> Iterator[tuple[Part, ...]]:
    if len(parts) <= FEW:
        yield from list(permutations(parts))[1:]
        return
    for i, part in enumerate(parts):
        rest = (*parts[:i], *parts[i + 1 :])
        yield (part, *rest)
        yield (*rest, part)
        for j in range(i):
            swapped = list(parts)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            yield tuple(swapped)


def _transforms(read: Read) -> Altered:
    """Values that are turned otherwise than the layout says, or not at all."""
    said, layout, size = read.layout.transform, read.layout, 2
    if isinstance(said, PerColumn):
        return
    if said is not None:
        words = f"the layout has the transform {said}, which the {{other}} forgets"
        yield words, evolve(layout, transform=None), read.unpacked
    while read.format.block_size % size == 0:
        if said is None or size != said.size:
            words = f"the {{other}} transforms values by Hadamard({size}), the layout says {said or 'no transform'}"
            yield words, evolve(layout, transform=Hadamard(size)), read.unpacked
        size *= 2


ALTERATIONS: tuple[Callable[[Read], Altered], ...] = (
    _order, _high_bits, from_the_top, digits, _signs, _order_of_groups, _groups, _exchanged, one_off, stored_otherwise,
    _counting, _size, _places, _left_out, _transforms,
)  # fmt: skip
