"""What a format's decoder in C (rung 2, `QuantFormat.decoder`) must keep to: part of `check_quant_format`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from sis_core.arrays import F32
from sis_core.testing.format_probe import N_ROWS, FormatProbe

DECODER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


def check_native_decoder(probe: FormatProbe) -> None:
    """The C function gives what `dequantize` gives, writes all of it and nothing else."""
    address = probe.format.decoder
    if address is None:
        return
    function = DECODER(address)
    for n_cols in probe.widths:
        row_bytes = probe.format.row_bytes(n_cols)
        for n_rows in (1, 2, 3, N_ROWS):
            for gap in (0, probe.format.type_size):
                case = f"{n_rows} rows of {n_cols} values, {row_bytes + gap} bytes apart"
                apart = np.zeros((n_rows, row_bytes + gap), np.uint8)
                apart[:, :row_bytes] = probe.rows(n_rows, n_cols)
                before = apart.copy()
                wanted = probe.decode(apart[:, :row_bytes], n_cols, case)
                out = np.full(n_rows * n_cols + 64, np.uint32(0x7FC0DEAD), np.uint32)
                place = out.ctypes.data + 32 * 4
                function(apart.ctypes.data, row_bytes + gap, n_rows, n_cols, place)
                _compare(probe, out, wanted, case)
                if not np.array_equal(apart, before):
                    probe.fail("the native decoder writes to its input", case)


def _compare(probe: FormatProbe, out: np.ndarray[Any, Any], wanted: F32, case: str) -> None:
    edges, inner = np.concatenate([out[:32], out[-32:]]), out[32:-32]
    if (edges != 0x7FC0DEAD).any():
        probe.fail("the native decoder writes outside its output", case)
    if (inner == 0x7FC0DEAD).any():
        at = int((inner == 0x7FC0DEAD).argmax())
        row, column = divmod(at, wanted.shape[1])
        probe.fail(f"the native decoder leaves row {row}, column {column} unwritten", case)
    found = inner.view(np.float32).reshape(wanted.shape)
    finite = np.isfinite(wanted)
    tolerance = 1e-6 * np.abs(np.where(finite, wanted, 0)).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # infinities are left out of the comparison
        wrong = (finite & ~(np.abs(found - wanted) <= tolerance)) | (finite != np.isfinite(found))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        probe.fail(
            f"the native decoder gives {found[row, column]:g} in row {row}, column {column}, "
            f"where dequantize gives {wanted[row, column]:g}",
            case,
        )
