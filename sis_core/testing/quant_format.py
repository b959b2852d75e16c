"""`check_quant_format`: what every quantisation format must keep to, whatever it stores."""

from __future__ import annotations

from functools import partial

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FormatError
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing.declared_layout import check_layout
from sis_core.testing.faithfulness import check_faithfulness, check_importance, name_mistake, name_scales
from sis_core.testing.format_declaration import check_declaration
from sis_core.testing.format_probe import N_ROWS, FormatProbe, same
from sis_core.testing.fused_linear import check_fused_linear
from sis_core.testing.native_decoder import check_native_decoder

LEAST = float(np.finfo(np.float32).tiny)  # a power of two is never 0: signs times one come back as small as this


def check_quant_format(format: QuantFormat, /, *, max_error: float | None = None) -> None:
    """Hold a format to the contract of `sis_core.quant`.

    Rows have 1, 3 and ``512 // block_size`` blocks, at least two: whatever a format stores for a row beside its blocks
    must fit such rows, and those of other lengths are refused by ``row_bytes`` with a FormatError. ``bits_per_weight``
    is that of a row of 64 blocks, within 1 %. Values that come out of a format are encoded again: a second round trip
    may not move them further than the first one moved the original, since a file may be quantised twice.

    Args:
        max_error: the largest root mean square error, relative to that of the values, for normally distributed values;
            by default what 2 bits fewer than the format's ``bits_per_weight`` could reach, and never less than 1/256.
            Formats that are coarse on purpose must say it: those of few mantissa bits, whose error does not fall with
            their bits, those that drop weights.

    Raises:
        AssertionError: naming the format, the fault, and the case in which it showed.
    """
    probe = FormatProbe(format)
    check_declaration(probe)
    check_decoding(probe)
    check_layouts(probe)
    if format.can_quantize:
        check_encoding(probe)
        check_faithfulness(probe, max_error)
        check_importance(probe)
    else:
        check_refusal_to_encode(probe)
    check_native_decoder(probe)
    check_fused_linear(format, probe.rows, probe.fail)


def check_decoding(probe: FormatProbe) -> None:
    """Any bytes; the same again, row by row, out of longer rows, in threads."""
    for n_cols in probe.widths:
        probe.decode(probe.bytes(N_ROWS, n_cols), n_cols, f"random bytes, {n_cols} columns")
        rows, others = probe.rows(N_ROWS, n_cols), probe.rows(N_ROWS, n_cols)
        decode = partial(probe.decode, n_cols=n_cols, case=f"rows of {n_cols} values")
        probe.repeatable("dequantize", decode, rows, others)
        _check_neighbours(probe, rows, others)
        probe.independent("dequantize", decode, rows)
        probe.strided("dequantize", decode, rows)
    n_cols = 2 * probe.format.block_size
    rows = probe.rows(N_ROWS, n_cols)
    probe.refuses("dequantize", "ignores n_cols: it accepts rows of another length", rows, probe.format.block_size)
    probe.refuses("dequantize", "accepts rows of float32", rows.astype(np.float32), n_cols)
    probe.refuses("dequantize", "accepts a vector", rows[0], n_cols)
    several = [probe.rows(3, n_cols) for _ in range(4)]
    probe.threads("dequantize", lambda r: probe.format.dequantize(r, n_cols), several)


def _check_neighbours(probe: FormatProbe, rows: U8, others: U8) -> None:
    """In a format of blocks, the bytes of a block decide its values and no others."""
    if not isinstance(probe.format, BlockFormat):
        return
    blocks, size = rows.reshape(-1, probe.format.type_size), probe.format.block_size
    n_cols = blocks.size // len(rows) // probe.format.type_size * size
    before = probe.decode(rows, n_cols, "ordinary rows").reshape(-1, size).copy()
    for i in range(min(5, len(blocks))):
        changed = blocks.copy()
        changed[i] = others.reshape(blocks.shape)[i]
        after = probe.decode(changed.reshape(rows.shape), n_cols, "one block changed").reshape(-1, size)
        moved = [j for j in range(len(blocks)) if j != i and not same(before[j], after[j])]
        if moved:
            probe.fail(f"dequantize: block {moved[0]} uses bytes of block {i}, such as its scale")


def check_encoding(probe: FormatProbe) -> None:
    """Any values; the same again, row by row, out of longer rows, in threads."""
    for n_cols in probe.widths:
        values = probe.normal(N_ROWS, n_cols) * probe.scales(N_ROWS, n_cols)
        encode = partial(probe.encode, case=f"rows of {n_cols} values")
        probe.repeatable("quantize", encode, values, values * np.float32(50))
        probe.independent("quantize", encode, values)
        probe.strided("quantize", encode, values)
        for case, rows in probe.finite(n_cols):
            _check_finite(probe, rows.astype(np.float32), case)
    _check_extremes(probe)
    n_cols = 2 * probe.format.block_size
    values = probe.normal(N_ROWS, n_cols)
    probe.refuses("quantize", "accepts float64", values.astype(np.float64))
    probe.refuses("quantize", "accepts a vector", values[0])
    if probe.format.block_size > 1:
        probe.refuses("quantize", "accepts rows that are not whole blocks", values[:, 1:].copy())
    several = [probe.normal(3, n_cols) for _ in range(4)]
    probe.threads("quantize", probe.format.quantize, several)


def _check_finite(probe: FormatProbe, values: F32, case: str) -> None:
    rows = probe.encode(values, case)
    decoded = probe.decode(rows, values.shape[1], case)
    if not np.isfinite(decoded).all():
        name_mistake(probe, rows, values, case)
        probe.remain_finite(rows, decoded, case)
    largest = np.abs(values).max(axis=1)
    layout = probe.format.layout
    spread = layout.transform.size**0.5 if layout and layout.transform else 1  # errors of so many values may add up
    if (np.abs(decoded).max(axis=1) > 2 * spread * largest + 1e-5).any():
        name_mistake(probe, rows, values, case)
        name_scales(probe)
        found = float(np.abs(decoded).max())
        probe.fail(f"turns values of at most {largest.max():g} into {found:g}", case)
    if case.endswith("zeros") and case != "one value among zeros" and np.abs(decoded).max() > LEAST:
        normal = probe.normal(*values.shape)
        encoded = probe.encode(normal, "normal values")
        name_mistake(probe, encoded, normal, "normal values")
        probe.fail(f"turns zeros into {decoded[decoded != 0][0]:g}", case)


def _check_extremes(probe: FormatProbe) -> None:
    """Values that no format need keep: they must not stop it, nor reach the rows beside them."""
    n_cols = probe.widths[-1]
    values = probe.normal(N_ROWS, n_cols)
    apart = probe.decode(probe.encode(values, "normal values"), n_cols, "normal values").copy()
    for extreme in (np.finfo(np.float32).max, -np.finfo(np.float32).max, np.nan, np.inf, -np.inf):
        spoilt = values.copy()
        spoilt[2, ::3] = extreme
        case = f"values of {extreme:g} in a row"
        try:
            decoded = probe.decode(probe.encode(spoilt, case), n_cols, case)
        except FormatError:
            continue
        rest = np.arange(N_ROWS) != 2
        if not same(decoded[rest], apart[rest]):
            probe.fail("quantize: a row changes the rows beside it", case)


def check_refusal_to_encode(probe: FormatProbe) -> None:
    """A format that cannot encode says so."""
    probe.refuses("quantize", "works, but can_quantize is False", probe.normal(2, probe.format.block_size))


def check_layouts(probe: FormatProbe) -> None:
    """The numbers that a declared layout finds are those that the decoder gives."""
    for n_cols in probe.widths:
        check_layout(probe.format, probe.rows, n_cols, probe.fail)
