"""Weights of random bytes, and activations as kernels see them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from sis_core.arrays import F32, I32, U8
from sis_core.backends.native import Library
from sis_core.backends.native.program import Program
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.runner import Runner
from sis_core.backends.native.weights import Store
from sis_core.block import Embedding
from sis_core.quant import QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Plan

SCALES_AT = {  # those of half precision
    "Q8_0": (0,), "Q4_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2),
    "Q5_K": (0, 2), "Q3_K": (108,), "Q2_K": (80, 82), "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ2_0": (64,), "TQ1_0": (52,),
    "MXFP4": (), "NVFP4": (),
}  # fmt: skip
POWERS_AT: dict[str, tuple[slice, int, int]] = {  # other scales: their bytes, from, to
    "MXFP4": (slice(0, 1), 110, 130),
    "NVFP4": (slice(0, 4), 0, 127),
}
QUANTIZED = tuple(SCALES_AT)
ALIKE = ("Q5_1", "IQ4_NL", "MXFP4", "TQ2_0")  # what their tiles hold, those of others hold too
EACH_QUANTIZED = [pytest.param(name, marks=pytest.mark.full) if name in ALIKE else name for name in QUANTIZED]


@cache
def _installed() -> Registry:
    return Registry.load()


def format_of(name: str) -> QuantFormat:
    """The installed format of a name; an error says which package brings it."""
    found: QuantFormat = _installed().get("quant_formats", name)
    return found


def random_rows(format: QuantFormat, n_rows: int, n_cols: int, random: np.random.Generator) -> U8:
    """Random bytes with sane scales; for floats, random values."""
    if format.name not in SCALES_AT:
        return format.quantize(random.standard_normal((n_rows, n_cols)).astype(np.float32))
    raw = random.integers(0, 256, (n_rows, format.row_bytes(n_cols)), dtype=np.uint8)
    blocks = raw.reshape(-1, format.type_size)
    for at in SCALES_AT[format.name]:
        scales = (random.standard_normal(len(blocks)) * 0.01).astype("<f2")
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    if format.name in POWERS_AT:
        where, low, high = POWERS_AT[format.name]
        blocks[:, where] = random.integers(low, high, blocks[:, where].shape)
    return raw


def extreme_rows(format: QuantFormat, n_rows: int, n_cols: int) -> Iterator[U8]:
    """Rows in which every byte is the same, from 0x00 to 0xff, with scales of one."""
    for byte in (0x00, 0x7F, 0x80, 0x81, 0xFF):
        raw = np.full((n_rows, format.row_bytes(n_cols)), byte, np.uint8)
        blocks = raw.reshape(-1, format.type_size)
        for at in SCALES_AT[format.name]:
            blocks[:, at : at + 2] = np.array([1.0], "<f2").view(np.uint8)
        if format.name in POWERS_AT:
            blocks[:, POWERS_AT[format.name][0]] = 100
        yield raw


def weight_of(format: QuantFormat, raw: U8, n_cols: int) -> Weight:
    """A weight over these bytes, one row of them for each of its own."""
    return Weight.of("w", format, (len(raw), n_cols), lambda: raw.reshape(-1))


def rounded(x: F32) -> F32:
    """Activations as the integer kernels see them: blocks of 32 in 8 bits, in their own arithmetic."""
    blocks = x.reshape(len(x), -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, where=scale > 0, out=np.zeros_like(scale))
    seen: F32 = (np.rint(blocks * inverse) * scale).reshape(x.shape)
    return seen


def in_halves(x: F32) -> F32:
    """Activations in half precision, in units of the power of two that brings a row's largest below 2^15."""
    _, exponent = np.frexp(np.abs(x).max(-1, keepdims=True))
    seen: F32 = np.ldexp(np.ldexp(x, 15 - exponent).astype(np.float16).astype(np.float32), exponent - 15)
    return seen


def in_bfloats(x: F32) -> F32:
    """Activations in bfloat16."""
    bits = x.view(np.uint32)
    seen: F32 = ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return seen


def taken(library: Library, weight: Weight, rows: I32, table: int | None = None, *, by_position: bool = False) -> F32:
    """Rows of a table, as the embedding of a program takes them."""
    store = Store(library, 1, pack=False)
    table = store.table(weight) if table is None else table
    assert table is not None
    program = Program(store, Rotations(), weight.n_cols)
    program.embedding(Embedding(weight), table, table if by_position else None)
    program.rows_out()
    plan = Plan(rows, None, rows, (), 32)
    return Runner(library, Rotations(), 2).run(program.finish(weight.n_cols), (plan,), tokens=rows)
