"""The types in which a cache keeps keys and values: their sizes, and codecs for the numpy reference.

Quantised types keep vectors rotated: an orthogonal matrix, here Hadamard's, changes no product of a query and a key
that are both multiplied by it, and what attention makes of rotated values is rotated back. It spreads what is large
over many values, so that blocks with one scale lose less (Ashkboos et al. 2024, "QuaRot").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import BackendError
from sis_core.quant import BF16Format
from sis_core.transform import Hadamard

BLOCK = 32
VALUES = 64  # of a value vector that are rotated together at most: more loses more (llama.cpp's pull request 21038)


def rotated_size(dim: int) -> int:
    """Neighbours of a key that are rotated together: as many as the largest power of two that divides ``dim``."""
    return dim & -dim


class KVType(ABC):
    """A way to keep vectors of one head as rows of `dtype`.

    Attributes:
        value_bytes: memory that a value takes, where a head is whole blocks.
        version: goes up when what the rows mean changes, so that a sequence saved before is refused.
    """

    dtype: ClassVar[type[Any]]
    value_bytes: ClassVar[float]
    version: ClassVar[int] = 1

    def width(self, dim: int) -> int:
        """Elements of `dtype` for a vector of ``dim`` values."""
        return dim

    def turn_keys(self, keys: F32) -> F32:
        """``(…, dim)`` multiplied by a symmetric orthogonal matrix: what is kept, and what queries are multiplied with.

        Twice is what was before. By default nothing happens.
        """
        return keys

    def turn_values(self, values: F32) -> F32:
        """The same for values, by a matrix of their own."""
        return values

    @abstractmethod
    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        """Turned values ``(…, dim)`` to ``(…, width(dim))``."""

    @abstractmethod
    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        """``(…, width(dim))`` to turned ``(…, dim)``; a view where the rows are float32."""


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


def _rotated(vectors: F32, size: int) -> F32:
    return Hadamard(size).apply(vectors, {}) if size > 1 else vectors


class _Blocks(KVType):
    """Blocks of 32 along a head, each with a half-precision scale; zeros fill up the last one.

    A row is the scales of all blocks, then their codes.
    """

    dtype = np.uint8
    n_bytes: ClassVar[int]  # of a block's codes

    def turn_keys(self, keys: F32) -> F32:
        return _rotated(keys, rotated_size(keys.shape[-1]))

    def turn_values(self, values: F32) -> F32:
        return _rotated(values, min(VALUES, rotated_size(values.shape[-1])))

    def width(self, dim: int) -> int:
        return -(-dim // BLOCK) * (2 + self.n_bytes)

    def encode(self, values: F32) -> np.ndarray[Any, Any]:
        *outer, dim = values.shape
        n = -(-dim // BLOCK)
        padded = np.zeros((*outer, n * BLOCK), np.float32)
        padded[..., :dim] = values
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scales, codes = self._quantized(padded.reshape(*outer, n, BLOCK))
            stored = scales.astype("<f2")
        return np.concatenate([stored.view(np.uint8), codes.reshape(*outer, -1)], -1)

    def decode(self, rows: np.ndarray[Any, Any], dim: int) -> F32:
        n = rows.shape[-1] // (2 + self.n_bytes)
        scales = np.ascontiguousarray(rows[..., : 2 * n]).view("<f2").astype(np.float32)
        values = self._whole(rows[..., 2 * n :].reshape(*rows.shape[:-1], n, self.n_bytes))
        with np.errstate(invalid="ignore"):  # a damaged row's scale is no number
            values *= scales[..., None]
        return values.reshape(*rows.shape[:-1], n * BLOCK)[..., :dim]

    @abstractmethod
    def _quantized(self, blocks: F32) -> tuple[F32, U8]:
        """Blocks ``(…, n, 32)`` to scales ``(…, n)`` and codes ``(…, n, n_bytes)``."""

    @abstractmethod
    def _whole(self, codes: U8) -> F32:
        """Codes ``(…, n, n_bytes)`` to what scales are multiplied by, ``(…, n, 32)``."""


class _Q8(_Blocks):
    """GGUF's Q8_0: signed bytes."""

    value_bytes, n_bytes = 34 / 32, 32
    version = 2  # version 1 was not rotated

    def _quantized(self, blocks: F32) -> tuple[F32, U8]:
        scales = np.abs(blocks).max(-1) / np.float32(127)
        scaled = blocks * np.where(scales == 0, np.float32(0), 1 / scales)[..., None]
        size = np.abs(scaled)
        whole = np.floor(size)
        whole += size - whole >= 0.5  # halves away from zero
        return scales, np.where(np.isfinite(scaled), np.copysign(whole, scaled), 0).astype(np.int8).view(np.uint8)

    def _whole(self, codes: U8) -> F32:
        return codes.view(np.int8).astype(np.float32)


class _Q4(_Blocks):
    """GGUF's Q4_0: codes of four bits less 8, the first sixteen of a block in the low halves of bytes.

    The value of the largest size, with its sign, becomes -8.
    """

    value_bytes, n_bytes = 18 / 32, 16

    def _quantized(self, blocks: F32) -> tuple[F32, U8]:
        largest = np.abs(blocks).argmax(-1)  # the first NaN, where there is one
        scales = np.take_along_axis(blocks, largest[..., None], -1)[..., 0] / np.float32(-8)
        scaled = blocks * np.where(scales == 0, np.float32(0), 1 / scales)[..., None]
        scaled += np.float32(8.5)
        codes = np.where(np.isfinite(scaled), np.minimum(scaled, 15), 8).astype(np.uint8)
        packed: U8 = codes[..., :16] | codes[..., 16:] << np.uint8(4)
        return scales, packed

    def _whole(self, codes: U8) -> F32:
        values = np.concatenate([codes & 15, codes >> 4], -1).astype(np.float32)
        values -= 8
        return values


KV_TYPES: dict[str, KVType] = {"f32": _F32(), "f16": _F16(), "bf16": _BF16(), "q8_0": _Q8(), "q4_0": _Q4()}


def kv_type_of(name: str, where: str) -> KVType:
    """The type of that name; BackendError naming the choices when there is none."""
    if name not in KV_TYPES:
        *names, last = KV_TYPES
        raise BackendError(f"no kv_type {name!r}", where=where, fix=f"choose {', '.join(names)} or {last}")
    return KV_TYPES[name]


def value_bytes(name: str) -> float:
    """Memory that a value takes in a cache of this type; at most those of float32 for a backend's own."""
    known = KV_TYPES.get(name)
    return known.value_bytes if known else 4


def saved_as(name: str) -> str:
    """What a saved sequence calls the type of its rows: one of another version has another name."""
    known = KV_TYPES.get(name)  # a backend may have types of its own
    return name if known is None or known.version == 1 else f"{name}, version {known.version}"
