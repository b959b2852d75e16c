"""Tables of rows as bytes: a step and whole numbers for each, and how near that is.

There are tiles of codes of at most 4 bits with a table for each row. In others, codes of a layout whose table is
``"row"`` become the bytes that they stand for.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core import quant
from sis_core.arrays import F32, I8
from sis_core.backends.native.some_rows import SomeRows

MAX_SHARE = 0.25  # of `RowTables.shares`: errors become 3 % larger at most


@frozen(eq=False)
class RowTables:
    """``tables[i]`` is ``steps[i] * numbers[i]``, but for an error.

    Attributes:
        steps: float32 ``(n_rows, 1)``.
        numbers: int8 ``(n_rows, 2 ** bits)``.
        shares: ``(n_rows,)``, each as `sis_core.layout.ByteTable.share`; NaN for a table that is not finite.
    """

    steps: F32
    numbers: I8
    shares: F32

    @classmethod
    def of(cls, tables: F32) -> RowTables:
        """Tables float32 ``(n_rows, 2 ** bits)``. Whole numbers from -128 to 127 stay as they are."""
        with np.errstate(invalid="ignore", over="ignore"):
            whole = ((tables == np.rint(tables)) & (tables >= -128) & (tables <= 127)).all(axis=1, keepdims=True)
            most = np.maximum(np.abs(tables).max(axis=1, keepdims=True), np.float32(1e-30))
            steps = np.where(whole, np.float32(1), most / np.float32(127))
            in_steps = np.asarray(tables / steps, np.float32)
            numbers = np.rint(in_steps)
            errors = np.sqrt(((in_steps - numbers) ** 2).mean(axis=1))
            own = _middle_gap(in_steps) / np.float32(12**0.5)
        return cls(steps, np.nan_to_num(numbers).astype(np.int8), np.asarray(errors / own, np.float32))

    @property
    def too_rough(self) -> bool:
        """Whether 8 bits spoil a row's table."""
        return not bool((self.shares <= MAX_SHARE).all())


def share_of_some(weight: quant.Weight) -> float:
    """The largest share of some rows of a weight of such a layout, from its first to its last.

    0 where its format fails to unpack them, which is said when it is packed.
    """
    some = SomeRows.of(weight)
    if some is None:
        return 0.0
    assert some.unpacked.tables is not None
    shares = RowTables.of(some.unpacked.tables).shares
    return float(np.inf if np.isnan(shares).any() else shares.max())


def _middle_gap(tables: F32) -> F32:
    """The median of the gaps between a row's levels that differ; infinity where all are the same: ``(n_rows,)``."""
    gaps = np.sort(np.diff(np.sort(tables, axis=1), axis=1), axis=1)
    n_same = (gaps == 0).sum(axis=1)
    n = gaps.shape[1] - n_same
    rows = np.arange(len(gaps))
    middle = (gaps[rows, n_same + np.maximum(n - 1, 0) // 2 - (n == 0)] + gaps[rows, n_same + n // 2 - (n == 0)]) / 2
    return np.where(n > 0, middle, np.inf).astype(np.float32)
