"""Codes whose bits one side counts from the top of each byte, and the other from the bottom."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from sis_core.arrays import U8
from sis_core.testing.reading import Altered, Read


def from_the_top(read: Read) -> Altered:
    """The first code in the highest bits of the first byte, its own highest bit first."""
    bits = read.layout.bits
    part = next((part for part in read.parts if part.name == "codes"), None)
    if part is None or bits in (1, 2, 4, 8):  # of these, whole codes of a byte are in reverse order
        return
    units = read.units.copy()
    where = slice(part.start, part.start + part.size)
    units[:, where] = _reversed(units[:, where], 8)
    words = f"codes of {bits} bits begin at the highest bit of a byte to one side, and at the lowest to the other"
    for its_words, layout, found in read.again(words, read.layout, units):
        yield its_words, layout, evolve(found, codes=_reversed(found.codes, bits))


def _reversed(numbers: U8, bits: int) -> U8:
    """Numbers with their lowest ``bits`` in reverse order."""
    every = np.arange(1 << bits, dtype=np.uint8)
    turned = np.packbits(np.unpackbits(every[:, None], axis=1, bitorder="little"), axis=1)[:, 0] >> np.uint8(8 - bits)
    return np.asarray(turned[numbers], np.uint8)
