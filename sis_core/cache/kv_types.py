"""The types in which a cache keeps keys and values: their sizes, and codecs for the numpy reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from sis_core.arrays import F32
from sis_core.errors import BackendError
from sis_core.quant import BF16Format


class KVType(ABC):
    """A way to keep vectors of one head as rows of `dtype`.

    Attributes:
        value_bytes: memory that a value takes, where a head is whole blocks.
    """

    dtype: ClassVar[type[Any]]
    value_bytes: ClassVar[float]

    def width(self, dim: int) -> int:
        """Elements of `dtype` for a vector of ``dim`` values."""
        return dim

    @abstractmethod
    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        """``(…, dim)`` to ``(…, width(dim))``."""

    @abstractmethod
    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        """``(…, width(dim))`` to ``(…, dim)``; a view where the rows are float32."""


class _Float(KVType):
    """A floating-point type that numpy has."""

    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore"):  # past the largest: infinite, as in every other converter
            return values.astype(self.dtype, copy=False)

    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        return rows.astype(np.float32, copy=False)


class _F32(_Float):
    dtype, value_bytes = np.float32, 4.0


class _F16(_Float):
    dtype, value_bytes = np.float16, 2.0


class _BF16(KVType):
    dtype, value_bytes = np.uint16, 2.0

    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        return BF16Format().quantize_blocks(values.reshape(-1, 1)).view(np.uint16).reshape(values.shape)

    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        bits = rows.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)


class _Q8(KVType):
    """GGUF's Q8_0 along a head: 32 signed bytes and a half-precision scale; zeros fill up the last block.

    A row is the scales of all blocks, then the bytes.
    """

    dtype, value_bytes = np.uint8, 34 / 32

    def width(self, dim: int) -> int:
        return -(-dim // 32) * 34

    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        *outer, dim = values.shape
        n = -(-dim // 32)
        padded = np.zeros((*outer, n * 32), np.float32)
        padded[..., :dim] = values
        blocks = padded.reshape(*outer, n, 32)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scales = np.abs(blocks).max(-1) / np.float32(127)
            scaled = blocks * np.where(scales == 0, np.float32(0), 1 / scales)[..., None]
            size = np.abs(scaled)
            whole = np.floor(size)
            whole += size - whole >= 0.5  # halves away from zero
            quants = np.where(np.isfinite(scaled), np.copysign(whole, scaled), 0).astype(np.int8)
            stored = scales.astype("<f2")
        return np.concatenate([stored.view(np.uint8), quants.reshape(*outer, -1).view(np.uint8)], -1)

    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        n = rows.shape[-1] // 34
        scales = np.ascontiguousarray(rows[..., : 2 * n]).view("<f2").astype(np.float32)
        values = rows[..., 2 * n :].view(np.int8).astype(np.float32).reshape(*rows.shape[:-1], n, 32)
        with np.errstate(invalid="ignore"):  # a damaged row's scale is no number
            values *= scales[..., None]
        return values.reshape(*rows.shape[:-1], n * 32)[..., :dim]


KV_TYPES: dict[str, KVType] = {"f32": _F32(), "f16": _F16(), "bf16": _BF16(), "q8_0": _Q8()}


def kv_type_of(name: str, where: str) -> KVType:
    """The type of that name; BackendError naming the choices when there is none."""
    if name not in KV_TYPES:
        *names, last = KV_TYPES
        raise BackendError(f"no kv_type {name!r}", where=where, fix=f"choose {', '.join(names)} or {last}")
    return KV_TYPES[name]
