"""What the bytes of ggml's types mean. Source: the blocks of ggml's ``ggml-common.h``."""

from __future__ import annotations

from sis_core.fields import Bits
from sis_core.layout import Layout, Scale

E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # doubled
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def nibbles(at: int, n: int, size: int) -> tuple[Bits, ...]:
    """``n`` pieces one after the other of ``size`` bytes each: first their low nibbles, then their high ones."""
    return tuple(Bits(at + size * i, 4, 8, shift) for i in range(n) for shift in (0, 4))


def fifth(at: int, high: int) -> tuple[Bits, ...]:
    """The nibbles of 16 bytes with the 32 bits of four others above them."""
    return Bits(at, 4, 8, 0, Bits(high, 1)), Bits(at, 4, 8, 4, Bits(high + 2, 1))


LAYOUTS = {
    "Q4_1": Layout(4, 32, Scale("f16", 0), Scale("f16", 2), codes=nibbles(4, 1, 16)),
    "Q5_0": Layout(5, 32, Scale("f16", 0), zero=16, codes=fifth(6, 2)),
    "Q5_1": Layout(5, 32, Scale("f16", 0), Scale("f16", 2), codes=fifth(8, 4)),
    "IQ4_NL": Layout(4, 32, Scale("f16", 0), table=IQ4, codes=nibbles(2, 1, 16)),
    "IQ4_XS": Layout(
        4, 32, Scale("uint", Bits(4, 4, high=Bits(2, 2)), less=32, times=Scale("f16", 0, per=256)),
        table=IQ4, codes=nibbles(8, 8, 16),
    ),
    "TQ1_0": Layout(2, 256, Scale("f16"), zero=1, ternary=True),  # the format unpacks its codes
    "TQ2_0": Layout(
        2, 256, Scale("f16", 64), zero=1, codes=[Bits(32 * i, 2, 8, 2 * j) for i in range(2) for j in range(4)]
    ),
    "MXFP4": Layout(4, 32, Scale("e8m0", 0, factor=0.5), table=E2M1, codes=nibbles(1, 1, 16)),
    "NVFP4": Layout(4, 16, Scale("ue4m3", 0, factor=0.5), table=E2M1, codes=nibbles(4, 4, 8)),
}  # fmt: skip
