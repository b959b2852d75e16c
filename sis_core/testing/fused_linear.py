"""What a format's own kernel (rung 3, `QuantFormat.native_linear`) must keep to: part of `check_quant_format`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NoReturn

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.backends.native import abi
from sis_core.quant import FusedLinear, QuantFormat, Weight

RUN = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32
)
PREPARED_BYTES = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
PREPARE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)  # fmt: skip

SHAPES = ((1, 1), (16, 2), (37, 3), (130, 8))  # rows, and blocks of a row
ROWS = 13
MAX_ERROR = 0.02  # of activations that a kernel may round to 8 bits: the root mean square, relative to the result's
GUARD = 4096  # bytes behind what may be written
UNTOUCHED = np.float32(-1.25e30)
THREADS, TIMES = 4, 3

Fail = Callable[[str, str], NoReturn]


def check_fused_linear(format: QuantFormat, bytes_of: Callable[[int, int], U8], fail: Fail) -> None:
    """Hold the kernels of a format to the rules of ``struct sis_linear`` in ``include/sis/abi.h``.

    Args:
        bytes_of: makes ordinary rows of so many values: ``(n_rows, row_bytes)``.
        fail: raises with a fault and the case in which it showed.
    """
    for n_rows, n_blocks in SHAPES:
        n_cols, case = n_blocks * max(format.block_size, 8), f"{n_rows} rows"
        weight = Weight.of("w", format, (n_rows, n_cols), partial(np.reshape, bytes_of(n_rows, n_cols), -1))
        fused = format.native_linear(weight)
        if fused is not None:
            _Kernel(fused, weight, partial(_fail, fail, case)).check()


def _fail(fail: Fail, case: str, fault: str) -> NoReturn:
    fail(fault, case)


class _Kernel:
    def __init__(self, fused: FusedLinear, weight: Weight, fail: Callable[[str], NoReturn]) -> None:
        self.fused, self.weight, self.fail = fused, weight, fail
        if not isinstance(fused.nbytes, int) or fused.nbytes < 0:
            fail(f"native_linear says that it takes {fused.nbytes!r} bytes")
        made = fused.bind()
        if not isinstance(made, int) or not made:
            fail(f"native_linear's bind returns {made!r}, no address")
        self.record = abi.LinearObject.from_address(made)
        if self.record.abi != abi.ABI:
            fail(f"its linear was made for ABI {self.record.abi}, not {abi.ABI}")
        if not 0 < self.record.parts < 1 << 31:
            fail(f"its linear has {self.record.parts} parts")
        if not self.record.run or bool(self.record.prepare) != bool(self.record.prepared_bytes):
            fail("its linear has no run, or one of prepare and prepared_bytes without the other")
        self.run = RUN(self.record.run)

    def check(self) -> None:
        random = np.random.Generator(np.random.Philox(12))
        x = random.standard_normal((ROWS, self.weight.n_cols)).astype(np.float32)
        whole = self.product(x)
        self.is_product(x, whole)
        self.parts(x)
        for n in (1, 2, 5):
            for first in (0, ROWS - n):
                if not np.array_equal(self.product(x[first : first + n]), whole[first : first + n], equal_nan=True):
                    self.fail(f"a row of its linear's result depends on how many rows there are (of {n} and {ROWS})")
        self.threads(x, whole)

    def product(self, x: F32, pool: ThreadPoolExecutor | None = None, cuts: tuple[int, ...] = (4, 5)) -> F32:
        """Part by part, or on the threads of a pool; rows are prepared in pieces that end at ``cuts``."""
        source, prepared = self.rows(x), self.prepared(x, pool, cuts)
        y = np.full((len(x), self.weight.n_rows), UNTOUCHED, np.float32)
        target, parts = self.rows(y), self.record.parts

        def part(number: int) -> None:
            code = self.run(
                self.record.self, ctypes.addressof(source), prepared, ctypes.addressof(target), number, parts
            )
            if code:
                self.fail(f"its linear fails with code {code}")

        list((pool.map if pool else map)(part, range(parts)))
        if (y == UNTOUCHED).any():
            self.fail("its linear leaves values unwritten")
        return y

    @staticmethod
    def rows(array: F32) -> abi.Rows:
        return abi.Rows(array.ctypes.data, *array.shape, array.strides[0] // 4)

    def prepared(self, x: F32, pool: ThreadPoolExecutor | None, cuts: tuple[int, ...]) -> int | None:
        if not self.record.prepare:
            return None
        size = [PREPARED_BYTES(self.record.prepared_bytes)(self.record.self, n) for n in range(len(x) + 1)]
        if sorted(size) != size:
            self.fail("prepared_bytes says fewer bytes for more rows")
        self._memory = np.full(size[-1] + 64 + GUARD, 0xA5, np.uint8)
        start = -self._memory.ctypes.data % 64
        borders = sorted({0, len(x), *(cut for cut in cuts if cut < len(x))})
        pieces, source = list(pairwise(borders)), self.rows(x)
        address = self._memory.ctypes.data + start

        def piece(rows: tuple[int, int]) -> None:
            first, stop = rows
            PREPARE(self.record.prepare)(self.record.self, ctypes.addressof(source), first, stop - first, address)

        list((pool.map if pool else map)(piece, pieces))
        if (self._memory[start + size[-1] :] != 0xA5).any():
            self.fail("prepare writes past the bytes that it asked for")
        return address

    def is_product(self, x: F32, found: F32) -> None:
        matrix = self.weight.dequantize()
        if not np.isfinite(matrix).all():  # of a format that can only be read: random bytes
            return
        wanted = x.astype(np.float64) @ matrix.astype(np.float64).T
        error = float(np.sqrt(np.mean((found - wanted) ** 2)) / max(np.sqrt(np.mean(wanted**2)), 1e-30))
        if not error <= MAX_ERROR:
            self.fail(f"its linear is not the product with what dequantize gives: the error is {error:.1%} of it")

    def parts(self, x: F32) -> None:
        """Each part alone, in rows that are longer than the result: who writes what."""
        source, prepared, n = self.rows(x), self.prepared(x, None, ()), self.weight.n_rows
        seen = np.zeros(n, np.intp)
        for number in range(self.record.parts):
            y = np.full((len(x), n + 5), UNTOUCHED, np.float32)
            target = abi.Rows(y.ctypes.data, len(x), n, n + 5)
            self.run(
                self.record.self, ctypes.addressof(source), prepared, ctypes.addressof(target), number,
                self.record.parts,
            )  # fmt: skip
            written = (y != UNTOUCHED).any(axis=0)
            if written[n:].any():
                self.fail("its linear writes beside the result")
            seen += written[:n]
        if (seen != 1).any():
            self.fail(f"the parts of its linear write column {int(np.flatnonzero(seen != 1)[0])} {seen.max()} times")

    def threads(self, x: F32, whole: F32) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(TIMES):
                if not np.array_equal(self.product(x, pool, tuple(range(ROWS))), whole, equal_nan=True):
                    self.fail("its linear gives other results on several threads, or where rows are cut otherwise")
