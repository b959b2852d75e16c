"""What a format says of itself, its versions and its blocks: part of `check_quant_format`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_core.errors import FormatError
from sis_core.quant import BlockFormat, QuantFormat
from sis_core.testing.declared_sides import check_sides
from sis_core.testing.format_probe import FormatProbe


def check_declaration(probe: FormatProbe) -> None:
    """Name, sizes, the length of rows, versions, and the tensors beside a weight."""
    format = probe.format
    if not isinstance(getattr(format, "name", None), str) or not format.name or format.name.split() != [format.name]:
        probe.fail("has no name, or one with spaces")
    if not (format.type_id is None or isinstance(format.type_id, int)):
        probe.fail(f"its type_id is {format.type_id!r}, neither a number nor None")
    if format.block_size < 1 or format.type_size < 1:
        probe.fail(f"declares blocks of {format.block_size} values in {format.type_size} bytes")
    for n_cols in [0, -format.block_size, *([format.block_size + 1] if format.block_size > 1 else [])]:
        try:
            format.row_bytes(n_cols)
        except FormatError:
            continue
        probe.fail(f"row_bytes accepts a row of {n_cols} values, which is not a whole number of blocks")
    n_cols = 64 * format.block_size
    bits = 8 * format.row_bytes(n_cols) / n_cols
    if not 0.99 * bits <= format.bits_per_weight <= 1.01 * bits:
        probe.fail(f"declares {format.bits_per_weight:g} bits a weight, but its rows take {bits:g}")
    _check_versions(probe)
    check_sides(format, probe.fail)
    if isinstance(format, BlockFormat):
        _check_blocks(probe, format)


def _check_versions(probe: FormatProbe) -> None:
    """Its own version, one that is not made yet, and those before it."""
    own: Any = probe.format.version
    if isinstance(own, bool) or not isinstance(own, int) or own < 1:
        probe.fail(f"its version is {own!r}, not a number from 1 on")
    if probe.format.of_version(own) is not probe.format:
        probe.fail(f"of_version({own}), its own, is not itself")
    for version in range(1, own + 2):
        try:
            with probe.guarded("of_version", f"version {version}"):
                found: Any = probe.format.of_version(version)
        except FormatError:
            continue
        if version > own:
            probe.fail(f"of_version accepts {version}, which is newer than its own")
        if not isinstance(found, QuantFormat) or found.name != probe.format.name or found.version != version:
            probe.fail(f"of_version({version}) is {found!r}, not a format of that name and version")


def _check_blocks(probe: FormatProbe, format: BlockFormat) -> None:
    """The methods that an author writes, before `BlockFormat` makes rows of their results."""
    data = probe.bytes(5, format.block_size)
    with probe.guarded("dequantize_blocks", "random bytes"), np.errstate(over="ignore", invalid="ignore"):
        values = format.dequantize_blocks(data)
    probe.result("dequantize_blocks", values, np.float32, (5, format.block_size), "random bytes")
    if format.can_quantize:
        with probe.guarded("quantize_blocks", "normal values"), np.errstate(over="ignore", invalid="ignore"):
            found = format.quantize_blocks(probe.normal(5, format.block_size))
        if isinstance(found, np.ndarray) and found.ndim == 2 and found.shape[1] != format.type_size:
            probe.fail(f"quantize_blocks makes {found.shape[1]} bytes a block, but type_size says {format.type_size}")
        probe.result("quantize_blocks", found, np.uint8, (5, format.type_size), "normal values")
