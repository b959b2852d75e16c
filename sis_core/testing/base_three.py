"""Digits of base 3, five in a byte, that an author's own `unpack` reads otherwise than its encoder or decoder does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from attrs import evolve

from sis_core.arrays import U8
from sis_core.testing.reading import Altered, Read

POWERS = np.array([1, 3, 9, 27, 81])  # 3 ** 5 = 243 numbers fit into a byte

Numbers = Callable[[np.ndarray], np.ndarray]
STORED: dict[str, tuple[Numbers, Numbers]] = {  # from bytes to numbers below 243, and back
    "whole numbers": (lambda raw: raw % 243, lambda numbers: numbers),
    "fractions of 256": (lambda raw: raw * 243 >> 8, lambda numbers: -(-numbers * 256 // 243)),  # as in GGML's TQ1_0
}


def digits(read: Read) -> Altered:
    """Bytes with their digits in reverse, of numbers that are stored otherwise, or whose values lie elsewhere."""
    part = next((part for part in read.parts if part.name == "codes"), None)
    if read.by_layout or part is None or read.unpacked.codes.max(initial=0) > 2:
        return
    where = slice(part.start, part.start + part.size)
    raw = read.units[:, where].astype(np.int64)
    for stored, found in _found(raw):
        for words, numbers in found:
            for own, (_, to_bytes) in STORED.items():
                units = read.units.copy()
                units[:, where] = to_bytes((numbers * POWERS).sum(-1))
                differ = [f"bytes as {stored} to the {{other}} and as {own} to unpack"] * (stored != own)
                yield from read.again(_said([*words, *differ]), read.layout, units)
            yield from _arranged(read, [*words, f"bytes as {stored}"], numbers.astype(np.uint8))


def _found(raw: np.ndarray) -> Iterator[tuple[str, list[tuple[list[str], np.ndarray]]]]:
    """The digits ``(n, n_bytes, 5)`` of bytes that are stored in each way, in both orders."""
    for stored, (to_numbers, _) in STORED.items():
        numbers = to_numbers(raw)[:, :, None] // POWERS % 3
        yield stored, [([], numbers), (["in reverse order"], numbers[:, :, ::-1])]


def _said(words: list[str]) -> str:
    return f"the digits of each byte, of base 3, are {' and '.join(words) or 'the same'}"


def _arranged(read: Read, words: list[str], numbers: U8) -> Altered:
    """As values of a row that are neighbours, or lie as far apart as there are bytes."""
    n_values = read.unpacked.codes.size // len(numbers)
    if numbers.shape[1] != -(-n_values // 5):
        return
    apart = numbers.swapaxes(1, 2)
    for place, codes in (("neighbours", numbers), ("values a fifth of a row apart", apart)):
        given = np.ascontiguousarray(codes).reshape(len(numbers), -1)[:, :n_values].reshape(read.unpacked.codes.shape)
        shown = f"the {{other}} takes the digits of a byte, of base 3, for {place}"
        yield f"{shown}, {', '.join(words)}", read.layout, evolve(read.unpacked, codes=given)
