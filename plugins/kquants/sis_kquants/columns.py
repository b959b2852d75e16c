"""What both searches share: super-blocks as columns of numbers near 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sis_core.arrays import F32, U8

TINY = np.float32(1e-30)  # far below the smallest scale that binary16 can hold
CHUNK = 256  # super-blocks at a time: some 2 MiB of intermediate values, which stay in the second-level cache


def units(blocks: F32) -> F32:
    """The largest magnitude of each block ``(n,)``, or 1 for blocks so small that all their scales are stored as 0."""
    unit: F32 = np.abs(blocks).max(axis=1)
    unit[unit < TINY] = 1
    return unit


def to_columns(blocks: F32, n_sub: int) -> F32:
    """``(n, 256)`` to ``(256 // n_sub, n * n_sub)``."""
    return np.ascontiguousarray(blocks.reshape(len(blocks) * n_sub, -1).T)


def to_rows(columns: F32, n_sub: int) -> F32:
    """The inverse of `to_columns`."""
    return np.ascontiguousarray(columns.T).reshape(columns.shape[1] // n_sub, -1)


def integers(values: F32) -> F32:
    """Whole numbers on their way to an integer type: 0 for NaN, whose conversion is undefined."""
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0)


def binary16(factor: Any, unit: F32) -> F32:
    """What ``factor * unit`` becomes when stored as binary16, in units again; infinite past 65504."""
    stored: F32 = (factor * unit).astype(np.float16).astype(np.float32) / unit
    return stored


def safe_inverse(scale: F32) -> F32:
    """``1 / scale``, and 0 for 0 and for what is not finite."""
    with np.errstate(divide="ignore"):
        inverse = 1 / scale
    return np.where(np.isfinite(inverse) & np.isfinite(scale), inverse, np.float32(0))


def pack(quants: NDArray[Any], run: int, bits: int) -> U8:
    """The inverse of `sis_kquants.bits.spread`: ``(n, n_values)`` to ``(n, n_values * bits // 8)``."""
    fields = 8 // bits
    parts = quants.reshape(len(quants), -1, fields, run)
    packed: U8 = parts[:, :, 0].astype(np.uint8)
    for i in range(1, fields):
        packed |= parts[:, :, i] << np.uint8(bits * i)
    return packed.reshape(len(quants), -1)
