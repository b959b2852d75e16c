"""One tensor, row panel by row panel, on several threads; never the whole tensor in float32."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import FOREIGN, FormatError, SisError
from sis_core.guarded import REPORT
from sis_core.quant import PANEL_VALUES, QuantFormat, Weight

LARGE = 1000.0  # weights beyond this may overflow a half-precision scale: look at what comes out


def encode(weight: Weight, format: QuantFormat, importance: F32 | None, pool: Executor, n_pending: int) -> Iterator[U8]:
    """The bytes of ``weight`` in ``format``, in order, in pieces of whole rows ``(n, row_bytes)``.

    Args:
        importance: float32 ``(n_expert, n_cols)``, for a format that uses it, or None.
        n_pending: panels that may be under way at once.

    Raises:
        FormatError: a NaN or an infinity, with its row; a format that fails or returns a wrong shape or type.
    """
    pending: deque[Future[U8]] = deque()
    try:
        for start, stop, expert in _panels(weight, importance):
            columns = None if importance is None else importance[expert]
            pending.append(pool.submit(_panel, weight, format, start, stop, columns))
            if len(pending) >= n_pending:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _panels(weight: Weight, importance: F32 | None) -> Iterator[tuple[int, int, int]]:
    """First row, last row and expert of each panel; a panel does not reach over experts of different importance."""
    n_expert = 1 if importance is None else len(importance)
    per_expert = weight.n_rows // n_expert
    step = max(1, PANEL_VALUES // weight.n_cols)
    for expert in range(n_expert):
        end = (expert + 1) * per_expert
        for start in range(expert * per_expert, end, step):
            yield start, min(start + step, end), expert


def _panel(weight: Weight, format: QuantFormat, start: int, stop: int, columns: F32 | None) -> U8:
    values = weight.decode(weight.raw_rows(start, stop), slice(start, stop))
    with np.errstate(invalid="ignore"):
        highest = max(float(values.max()), -float(values.min()))  # NaN comes through max and min
    if not np.isfinite(highest):
        _refuse_values(weight, values, start)
    try:
        found = format.quantize(values) if columns is None else format.quantize_weighted(values, columns)
    except SisError:
        raise
    except FOREIGN as error:  # a stranger's encoder: say whose, and where
        raise FormatError(
            f"the format {format.name} failed on rows {start} to {stop}: {type(error).__name__}: {error}",
            where=f"tensor {weight.name}",
            fix=REPORT,
        ) from error
    wanted = (stop - start, format.row_bytes(weight.n_cols))
    if found.dtype != np.uint8 or found.shape != wanted:
        raise FormatError(
            f"the format {format.name} returned {found.dtype} {found.shape}, not uint8 {wanted}",
            where=f"tensor {weight.name}",
            fix=REPORT,
        )
    if highest > LARGE:
        _check_result(weight, format, found, start)
    return np.ascontiguousarray(found)


def _refuse_values(weight: Weight, values: F32, start: int) -> None:
    row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
    raise FormatError(
        f"row {start + row}, column {column} is {values[row, column]}: such a weight cannot be quantised",
        where=f"tensor {weight.name}",
        fix="the file is damaged or was badly converted: download or convert it again",
    )


def _check_result(weight: Weight, format: QuantFormat, rows: U8, start: int) -> None:
    """Refuse values that do not fit into the format, which decodes them as infinity or NaN."""
    with np.errstate(all="ignore"):
        bad = ~np.isfinite(format.dequantize(rows, weight.n_cols))
    if bad.any():
        row = start + int(np.argwhere(bad)[0][0])
        raise FormatError(
            f"row {row} has values too large for {format.name}",
            where=f"tensor {weight.name}",
            fix=f"choose another format for it: --tensor '{weight.name}=BF16'",
        )
