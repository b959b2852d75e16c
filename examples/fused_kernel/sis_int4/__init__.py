"""INT4: symmetric integers of 4 bits, multiplied by a kernel of their own.

Source of the rounding: absmax quantisation, Dettmers et al. 2022, "LLM.int8()", section 2, with 4 bits and blocks.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

from sis_core import hookimpl
from sis_core.arrays import F32, U8
from sis_core.quant import BlockFormat, QuantFormat, Weight

LIBRARY = ctypes.CDLL(str(Path(__file__).with_name("libint4.so")))  # a global: it must outlive every address
LIBRARY.int4_name.restype = ctypes.c_char_p
LIBRARY.int4_bytes.argtypes, LIBRARY.int4_bytes.restype = [c_uint64, c_uint64], c_uint64
LIBRARY.int4_pack.argtypes, LIBRARY.int4_pack.restype = (
    [c_void_p, c_void_p, c_uint64, c_uint64, c_uint64, c_int32],
    None,
)


class Int4(BlockFormat):
    """Blocks of 32: the largest magnitude over 7 as binary16, then 16 bytes: values 0 to 15 low, 16 to 31 high.

    Attributes:
        isa: the number of the instruction set that kernels use, the best here by default.
    """

    name, block_size, type_size = "INT4", 32, 18

    def __init__(self, isa: int | None = None) -> None:
        self.isa = LIBRARY.int4_best() if isa is None else isa

    def quantize_blocks(self, values: F32) -> U8:
        self.check_values(values, finite=True)
        scales = (np.abs(values).max(axis=1, keepdims=True) / np.float32(7)).astype("<f2")  # (n, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.nan_to_num(np.rint(values / scales.astype(np.float32)))  # a scale of 0: all are 0
        stored = (np.clip(codes, -7, 7) + 8).astype(np.uint8)
        return np.hstack([scales.view(np.uint8), stored[:, :16] | stored[:, 16:] << 4])

    def dequantize_blocks(self, blocks: U8) -> F32:
        codes = np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4]).astype(np.float32) - 8
        return codes * blocks[:, :2].copy().view("<f2").astype(np.float32)

    def native_linear(self, weight: Weight) -> Int4Linear:
        return Int4Linear(weight, self.isa)


class Int4Linear:
    """A matrix packed for the kernels of csrc/, once it is bound."""

    def __init__(self, weight: Weight, isa: int) -> None:
        self.weight, self.isa = weight, isa
        self.nbytes = int(LIBRARY.int4_bytes(weight.n_rows, weight.n_cols))

    def bind(self) -> int:
        raw = self.weight.raw
        self.memory = np.empty(self.nbytes + 64, np.uint8)
        address = -(-self.memory.ctypes.data // 64) * 64
        n_rows, n_cols = self.weight.n_rows, self.weight.n_cols
        LIBRARY.int4_pack(address, raw.ctypes.data, raw.strides[0], n_rows, n_cols, self.isa)
        return address


@hookimpl
def sis_register_quant_formats() -> list[QuantFormat]:
    return [Int4()]
