"""Fields of a few bits in blocks of bytes."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.fields import Bits

SCALES = (Bits(4, 6, 8), Bits(12, 4, 8, 0, Bits(4, 2, 8, 6)))  # of Q4_K and Q5_K; see `scales_and_mins`
MINS = (Bits(8, 6, 8), Bits(12, 4, 8, 4, Bits(8, 2, 8, 6)))


def half(blocks: U8, start: int) -> F32:
    """The binary16 at byte ``start`` (even) of each block, as float32 ``(n, 1)``."""
    return blocks.view("<u2")[:, start // 2 : start // 2 + 1].view("<f2").astype(np.float32)


def cut(blocks: U8, start: int, stop: int) -> U8:
    """The bytes ``start:stop`` of each block, contiguous ``(n, stop - start)``."""
    return np.ascontiguousarray(blocks[:, start:stop])


def spread(packed: U8, run: int, bits: int) -> U8:
    """Unpack fields of ``bits`` bits: ``(n, n_bytes)`` to ``(n, n_bytes * 8 // bits)``.

    Of each ``run`` bytes come first all the lowest fields, then all the next ones: the order in which ggml packs.
    """
    n, n_bytes = packed.shape
    fields = 8 // bits
    out = np.empty((n, n_bytes // run, fields, run), np.uint8)
    # Whole words are moved, not bytes: numpy's loops are short here, and 16 bytes at once make them short of work.
    words = out.view(np.complex128)
    mask = np.uint8((1 << bits) - 1)
    for i in range(fields):
        field = packed >> np.uint8(bits * i)
        if i < fields - 1:
            field &= mask
        words[:, :, i] = field.view(np.complex128).reshape(n, n_bytes // run, run // 16)
    return out.reshape(n, -1)


def scales_and_mins(packed: U8) -> tuple[U8, U8]:
    """The eight 6-bit scales and mins of Q4_K and Q5_K: ``(n, 12)`` to two ``(n, 8)``.

    Bytes 0 to 3 hold scales 0 to 3 and, in their two upper bits, the top of scales 4 to 7; bytes 4 to 7 the same for
    mins; bytes 8 to 11 the low four bits of scales 4 to 7, and of mins 4 to 7 above them. Source: ggml's
    ``get_scale_min_k4``.
    """
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1)
    mins = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1)
    return scales, mins


def pack_scales_and_mins(scales: U8, mins: U8) -> U8:
    """The inverse of `scales_and_mins`: two ``(n, 8)`` of at most 63 to ``(n, 12)``."""
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = mins[:, :4] | mins[:, 4:] >> 4 << 6
    rest = scales[:, 4:] & 15 | mins[:, 4:] << 4
    return np.concatenate([first, second, rest], axis=1)


def scaled(quants: U8 | np.ndarray, scales: F32, mins: F32 | None = None) -> F32:
    """``scale * q - min`` for each sub-block: quants ``(n, 256)``, scales and mins ``(n, n_sub)``."""
    n, n_sub = scales.shape
    values = quants.astype(np.float32).reshape(n, n_sub, -1)
    values *= scales[:, :, None]
    if mins is not None:
        values -= mins[:, :, None]
    return values.reshape(n, -1)


def product(scale: F32, small: np.ndarray) -> F32:
    """``(n, 1)`` times small integers ``(n, n_sub)`` in float32."""
    result: F32 = scale * small.astype(np.float32)
    return result
