"""The kit finds out what is wrong with a kernel of a format's own."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
import pytest

from sis_core.backends.native import abi
from sis_core.quant import F16Format, Weight
from sis_core.testing import check_quant_format
from sis_core.testing.kernels.strangers import PREPARE, PREPARED_BYTES, RUN, rows_of


class Fused(F16Format):
    """Half precision with a kernel whose rows are prepared; ``fault`` is what it does wrong."""

    name, type_id = "FUSED", None

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def native_linear(self, weight: Weight) -> Kernel | None:
        return None if self.fault == "none" else Kernel(weight, self.fault)


class Kernel:
    nbytes = 0

    def __init__(self, weight: Weight, fault: str) -> None:
        self.weight, self.fault, self.busy = weight, fault, threading.Lock()
        self.nbytes = -1 if fault == "bytes" else 0

    def prepare(self, owner: int, x: Any, first: int, n: int, out: int) -> None:
        rows = rows_of(x[0])
        for row in range(first, first + n):
            values = np.append(rows[row], np.zeros(64 * (self.fault == "past"), np.float32)).astype(np.float32)
            ctypes.memmove(out + row * rows.shape[1] * 4, values.ctypes.data, values.nbytes)
        if self.fault == "cut" and first:
            ctypes.memset(out + first * rows.shape[1] * 4, 0, 4)

    def run(self, owner: int, x: Any, prepared: int, y: Any, part: int, parts: int) -> int:
        matrix, n = self.weight.dequantize(), x[0].n
        shape = (n, matrix.shape[1])
        given = np.frombuffer((ctypes.c_float * (n * shape[1])).from_address(prepared), np.float32).reshape(shape)
        first, stop = len(matrix) * part // parts, len(matrix) * (part + 1) // parts
        if self.fault == "overlap":
            first = 0
        if self.fault == "unwritten":
            stop -= stop == len(matrix)
        if self.fault == "code":
            return 5
        alone = self.busy.acquire(blocking=False)
        for row, values in zip(rows_of(y[0]), given, strict=True):
            row[first:stop] = matrix[first:stop] @ values * (1.1 if self.fault == "wrong" else 1)
            if self.fault == "company" and n == 2:
                row[first:stop] += 1e-3
            if self.fault == "threads" and not alone:
                row[first:stop] = 0
        if self.fault == "beside" and y[0].stride > len(matrix):
            whole = (ctypes.c_float * (y[0].stride * n)).from_address(y[0].values)
            whole[len(matrix)] = 0.0
        if alone:
            threading.Event().wait(0.002 if self.fault == "threads" else 0)
            self.busy.release()
        return 0

    def bind(self) -> int:
        self.calls = RUN(self.run), PREPARED_BYTES(lambda owner, n: n * self.weight.n_cols * 4), PREPARE(self.prepare)
        calls = [ctypes.cast(call, ctypes.c_void_p).value for call in self.calls]
        if self.fault == "half":
            calls[2] = None
        parts = 0 if self.fault == "no parts" else min(3, self.weight.n_rows)
        self.record = abi.LinearObject(3 if self.fault == "abi" else abi.ABI, parts, None, *calls)
        return 0 if self.fault == "null" else ctypes.addressof(self.record)


def test_a_right_kernel_and_none_pass() -> None:
    check_quant_format(Fused())
    check_quant_format(Fused("none"))


@pytest.mark.parametrize(
    ("fault", "message"),
    {
        "bytes": "says that it takes -1 bytes", "null": "returns 0, no address", "abi": "made for ABI 3, not 4",
        "no parts": "has 0 parts", "half": "one of prepare and prepared_bytes", "code": "fails with code 5",
        "past": "prepare writes past the bytes", "overlap": "write column 0 [23] times", "beside": "writes beside",
        "unwritten": "leaves values unwritten", "wrong": "not the product .* the error is 10.0%",
        "company": "depends on how many rows there are .of 2 and 13", "threads": "other results on several threads",
        "cut": "not the product|other results|depends",
    }.items(),
)  # fmt: skip
def test_a_fault_is_named(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=f"format FUSED: .*{message}"):
        check_quant_format(Fused(fault))
