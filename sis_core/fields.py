"""Where numbers lie in blocks of bytes: fields of a few bits, and small floats.

What is read is uint8 ``(n_blocks, type_size)``; every step is one of numpy's over all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any, Literal, TypeAlias

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, U8
from sis_core.discovery.given import check_kind, check_whole
from sis_core.errors import FormatError

MAX_BITS, MAX_FLOAT_BITS = 8, 32

Kind: TypeAlias = Literal["f32", "f16", "bf16", "e8m0", "ue4m3", "uint", "int"]
"""How a number is stored. ``e8m0`` is a power of two, ``2 ** (byte - 127)``; ``ue4m3`` the 8-bit float of four exponent
and three fraction bits, with 0x7f as 0, as in GGML; ``uint`` and ``int`` are whole numbers of a few bits, the latter in
two's complement; the others are IEEE 754's and bfloat16, the lower byte first."""

FLOAT_BYTES: dict[str, int] = {"f32": 4, "f16": 2, "bf16": 2, "e8m0": 1, "ue4m3": 1}
KINDS = (*FLOAT_BYTES, "uint", "int")


@frozen
class Bits:
    """A run of numbers, evenly spaced, in each block of bytes.

    Number ``i`` of the run begins at bit ``8 * at + shift + i * stride``, counted from the lowest bit of each byte, and
    its own lowest bit comes first. How many there are follows from the block, whose runs have equally many.

    Attributes:
        at: the byte of a block.
        bits: of a number, at most 8; more for floats, whose bytes are whole.
        stride: bits from one number to the next; 0, the default, is side by side.
        shift: the first number's lowest bit within its byte.
        high: where the bits above these lie, of numbers that are cut in two.

    Raises:
        FormatError: something negative, or too many bits.
    """

    at: int
    bits: int
    stride: int = 0
    shift: int = 0
    high: Bits | None = None

    def __attrs_post_init__(self) -> None:
        check_whole("Bits", 0, at=self.at, stride=self.stride, shift=self.shift)
        check_whole("Bits", 1, MAX_FLOAT_BITS, bits=self.bits)
        check_kind("Bits", (Bits, type(None)), "Bits, or None", high=self.high)
        if self.high and self.width > MAX_BITS:
            raise FormatError(
                f"{self} holds numbers of {self.width} bits", where="layout", fix=f"let them have {MAX_BITS} at most"
            )

    @property
    def step(self) -> int:
        """`stride`, or what it is by default."""
        return self.stride or self.bits

    @property
    def width(self) -> int:
        """Bits of a number, with the ``high`` ones."""
        return self.bits + (self.high.width if self.high else 0)

    def end(self, n: int) -> int:
        """The byte behind a run of ``n`` numbers."""
        own = self.at + -(-(self.shift + (n - 1) * self.step + self.bits) // 8)
        return max(own, self.high.end(n)) if self.high else own

    def places(self, n: int) -> np.ndarray:
        """The bits of a block that a run of ``n`` numbers takes, from its first byte's lowest on; none left out."""
        first = 8 * self.at + self.shift + self.step * np.arange(n)
        own = np.add.outer(first, np.arange(self.bits)).reshape(-1)
        return np.concatenate([own, self.high.places(n)]) if self.high else own

    def read(self, blocks: U8, n: int) -> U8:
        """The ``n`` numbers of the run in each block: uint8 ``(n_blocks, n)``."""
        out = np.empty((len(blocks), n), np.uint8)
        period = 8 // gcd(self.step, 8)  # after so many numbers a run is at the same bit of a byte again
        every = period * self.step // 8
        mask = np.uint8((1 << self.bits) - 1)
        for i in range(min(period, n)):
            byte, shift = divmod(8 * self.at + self.shift + i * self.step, 8)
            stop = byte + (-(-(n - i) // period) - 1) * every + 1
            numbers = blocks[:, byte:stop:every] >> np.uint8(shift)
            if shift + self.bits > 8:  # the rest is in the next byte
                numbers |= blocks[:, byte + 1 : stop + 1 : every] << np.uint8(8 - shift)
            np.bitwise_and(numbers, mask, out=out[:, i::period])
        if self.high:
            out |= self.high.read(blocks, n) << np.uint8(self.bits)
        return out


Runs: TypeAlias = Bits | Sequence[Bits]
"""One run, or several that follow each other."""


def check_places(owner: str, **fields: Any) -> None:
    """FormatError for what is neither None nor runs."""
    for name, value in fields.items():
        several = isinstance(value, list | tuple) and bool(value)
        kinds = Bits if several else (Bits, type(None))
        for run in value if several else [value]:
            check_kind(owner, kinds, "Bits(at, bits), or a tuple of them", **{name: run})


def as_runs(runs: Runs | None) -> tuple[Bits, ...]:
    """One run or several as a tuple."""
    if runs is None:
        return ()
    return (runs,) if isinstance(runs, Bits) else tuple(runs)


def read_codes(runs: Sequence[Bits], blocks: U8, n: int) -> U8:
    """The ``n`` numbers of all runs in each block, one run behind the other: uint8 ``(n_blocks, n)``."""
    size = n // len(runs)
    out = np.empty((len(blocks), n), np.uint8)
    for i, run in enumerate(runs):
        out[:, i * size : (i + 1) * size] = run.read(blocks, size)
    return out


def read_numbers(kind: Kind, runs: Sequence[Bits], blocks: U8, n: int) -> np.ndarray[Any, Any]:
    """As `read_codes`, of any kind: ``(n_blocks, n)`` in a type that holds them all."""
    if kind == "uint":
        return read_codes(runs, blocks, n).astype(np.int16)
    if kind == "int":
        numbers = read_codes(runs, blocks, n).astype(np.int16)
        width = runs[0].width
        return numbers - ((numbers >> (width - 1) & 1) << width)
    size, count, places = FLOAT_BYTES[kind], n // len(runs), []
    for run in runs:
        places += [run.at + i * run.step // 8 for i in range(count)]
    raw = np.take(blocks, np.add.outer(places, range(size)).reshape(-1), axis=1)  # (n_blocks, n * size), contiguous
    return _READ[kind](raw)


def check_runs(name: str, runs: Sequence[Bits], kind: Kind, n: int, type_size: int) -> None:
    """FormatError unless blocks of ``type_size`` bytes hold ``n`` numbers, such as a ``"scale"``, in these runs."""
    if not runs or n % len(runs):
        raise FormatError(
            f"{n} numbers of a block are not the same number in each of {len(runs)} runs",
            where="layout",
            fix=f"give as many runs as divide {n}",
        )
    for run in runs:
        size = FLOAT_BYTES.get(kind, 0)
        if size and (run.bits != 8 * size or run.shift or run.step % 8 or run.high):
            raise FormatError(
                f"{kind} takes {size} whole bytes, not {run}",
                where="layout",
                fix=f"give the byte where it lies, or Bits(at, {8 * size})",
            )
        if not size and (run.width > MAX_BITS or run.width != runs[0].width):
            raise FormatError(
                f"{run} is of more than {MAX_BITS} bits, or not of the others' width",
                where="layout",
                fix=f"let all runs hold numbers of the same bits, {MAX_BITS} at most",
            )
        if run.end(n // len(runs)) > type_size:
            raise FormatError(
                f"{counted(n // len(runs), name)} from byte {run.at} on end at byte {run.end(n // len(runs))}, but a "
                f"block has {type_size}",
                where="layout",
                fix=f"see where the first {name} lies{'' if name == 'code' else ', how many values share one'}, and "
                "whether block_size and type_size count all values and bytes of a block",
            )


def counted(n: int, name: str) -> str:
    """So many of what has that name: ``1 scale``, ``2 scales of the upper level``."""
    noun, of, rest = name.partition(" of ")
    if n != 1:
        noun = "minima" if noun == "minimum" else f"{noun}s"
    return f"{n} {noun}{of}{rest}"


def check_apart(parts: Sequence[tuple[str, Sequence[Bits], int]], type_size: int) -> None:
    """FormatError when a bit of a block belongs to two of the numbers in ``parts``: what they are, runs, how many.

    The first of the parts are the codes, one for each value.
    """
    values = parts[0][2]
    shares = [counted(n, name) + f" (one for each {values // n} values)" * (n < values) for name, _, n in parts]
    owners = np.full(8 * type_size, -1)
    for i, (name, runs, n) in enumerate(parts):
        for run in runs:
            places = run.places(n // len(runs))
            taken = places[owners[places] >= 0]
            if taken.size:
                at = int(owners[taken[0]])
                other, same = parts[at][0], at == i
                both = f"of two {name}s" if same else f"of a {other} and of a {name}"
                where = f"the {name}s" if same else f"the {name} and the {other}"
                raise FormatError(
                    f"byte {taken[0] // 8} of a block is part {both}",
                    where="layout",
                    fix=f"see where {where} begin, and whether a block has "
                    + " and ".join(shares[part] for part in dict.fromkeys((i, at))),
                )
            if len(set(places.tolist())) < len(places):  # np.unique would import numpy.ma for its first array
                raise FormatError(f"the numbers at {run} overlap", where="layout", fix="let stride be at least bits")
            owners[places] = i


def _bf16(raw: U8) -> F32:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _ue4m3() -> F32:
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    values = np.where(exponent == 0, np.ldexp(fraction / 8, -6), np.ldexp(1 + fraction / 8, exponent - 7))
    return np.where(byte == 0x7F, 0, values).astype(np.float32)


_UE4M3 = _ue4m3()
_READ: dict[str, Callable[[U8], np.ndarray[Any, Any]]] = {
    "f32": lambda raw: raw.view("<f4"),
    "f16": lambda raw: raw.view("<f2").astype(np.float32),
    "bf16": _bf16,
    "e8m0": lambda raw: np.ldexp(1.0, raw.astype(np.int32) - 127),  # float64: the largest is past float32
    "ue4m3": lambda raw: _UE4M3[raw],
}
