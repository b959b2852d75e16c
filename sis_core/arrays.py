"""Names for the numpy array types that cross module borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I32: TypeAlias = NDArray[np.int32]
I8: TypeAlias = NDArray[np.int8]
U8: TypeAlias = NDArray[np.uint8]
Ids: TypeAlias = NDArray[np.intp]


def extremes(values: Sequence[int] | np.ndarray[Any, Any]) -> tuple[int, int]:
    """The smallest and the largest of some integers. For a few, numpy's reductions take five times as long."""
    n = len(values)
    if isinstance(values, np.ndarray):
        if n > 32:
            return int(values.min()), int(values.max())
        values = values.tolist()
    return (values[0], values[0]) if n == 1 else (min(values), max(values))
