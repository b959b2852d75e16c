"""Formats of strangers: of Python alone, with a decoder, with linears of their own."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.backends.native import abi
from sis_core.quant import QuantFormat, Weight


class Plain(QuantFormat):
    """Rung 1: a format of Python alone, signed bytes in eighths."""

    name, block_size, type_size = "PLAIN", 1, 1

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        return rows.view(np.int8).astype(np.float32) / np.float32(8)


DECODE = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_float),
)  # fmt: skip


def _decode(rows: Any, row_bytes: int, n_rows: int, n_cols: int, out: Any) -> None:
    source = np.ctypeslib.as_array(rows, (n_rows * row_bytes,)).reshape(n_rows, row_bytes)[:, :n_cols]
    np.ctypeslib.as_array(out, (n_rows * n_cols,))[:] = (source.view(np.int8) / np.float32(8)).reshape(-1)


plain_decode = DECODE(_decode)


class Decoded(Plain):
    """Rung 2: with a decoder."""

    @property
    def decoder(self) -> int | None:
        return ctypes.cast(plain_decode, ctypes.c_void_p).value


RUN = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.POINTER(abi.Rows),
    ctypes.c_void_p,
    ctypes.POINTER(abi.Rows),
    ctypes.c_uint32,
    ctypes.c_uint32,
)


def rows_of(record: abi.Rows) -> F32:
    """The rows ``(n, n_cols)`` that C was given, in place."""
    flat = (ctypes.c_float * (record.n * record.stride)).from_address(record.values)
    array: F32 = np.frombuffer(flat, np.float32).reshape(record.n, record.stride)[:, : record.n_cols]
    return array


class Own(Plain):
    """Rung 3: with a linear of its own, in three parts."""

    def __init__(self, code: int = 0, version: int = abi.ABI) -> None:
        self.code, self.abi, self.parts_run = code, version, set[int]()

    def native_linear(self, weight: Weight) -> OwnLinear:
        return OwnLinear(self, weight)


class OwnLinear:
    """A linear of Python's in C's clothes."""

    nbytes = 0

    def __init__(self, format: Own, weight: Weight) -> None:
        self.format, self.weight = format, weight

    def bind(self) -> int:
        matrix, format = self.weight.dequantize(), self.format

        def run(owner: int, x: Any, prepared: int, y: Any, part: int, parts: int) -> int:
            cut = [len(matrix) * i // parts for i in range(parts + 1)]
            chosen = slice(cut[part], cut[part + 1])
            rows_of(y[0])[:, chosen] = rows_of(x[0]) @ matrix[chosen].T
            format.parts_run.add(part)
            return format.code

        self.function = RUN(run)
        self.record = abi.LinearObject(format.abi, 3, None, ctypes.cast(self.function, ctypes.c_void_p).value)
        return ctypes.addressof(self.record)


PREPARED_BYTES = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)


PREPARE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(abi.Rows), ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)


class Prepared(Own):
    """Rung 3 with rows that are prepared: doubled, and counted. One `prepare` serves all linears of a format."""

    def __init__(self) -> None:
        super().__init__()
        self.other = ""  # weights whose names end so want a form of their own
        self.rows: list[tuple[int, int, int]] = []  # where to, the first, how many; appending is atomic
        self.bytes = PREPARED_BYTES(lambda owner, n: n * 4096 * 4)
        self.prepare = PREPARE(self._prepare)

    def _prepare(self, owner: int, x: Any, first: int, n: int, out: int) -> None:
        rows = rows_of(x[0])
        width = rows.shape[1]
        assert out % 64 == 0
        for row in range(first, first + n):
            doubled = (rows[row] * 2).astype(np.float32)
            ctypes.memmove(out + row * width * 4, doubled.ctypes.data, width * 4)
        self.rows.append((out, first, n))

    def native_linear(self, weight: Weight) -> OwnLinear:
        return PreparedLinear(self, weight)


class PreparedLinear(OwnLinear):
    """One that reads rows as its format prepared them."""

    def bind(self) -> int:
        assert isinstance(self.format, Prepared)
        matrix = self.weight.dequantize()

        def run(owner: int, x: Any, prepared: int, y: Any, part: int, parts: int) -> int:
            shape = (x[0].n, matrix.shape[1])
            flat = (ctypes.c_float * (shape[0] * shape[1])).from_address(prepared)
            chosen = slice(len(matrix) * part // parts, len(matrix) * (part + 1) // parts)
            rows_of(y[0])[:, chosen] = np.frombuffer(flat, np.float32).reshape(shape) @ matrix[chosen].T / 2
            return 0

        self.function = RUN(run)
        calls = [ctypes.cast(f, ctypes.c_void_p).value for f in (self.function, self.format.bytes, self.format.prepare)]
        form = int(self.weight.name.endswith(self.format.other)) if self.format.other else 0
        self.record = abi.LinearObject(abi.ABI, 3, None, *calls, form)
        return ctypes.addressof(self.record)
