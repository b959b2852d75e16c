"""What a model gives is numbers, or an error."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32
from sis_core.errors import ModelError


def finite(rows: F32, what: str) -> F32:
    """The rows; ModelError where ``what`` they are made of is NaN or infinite."""
    if not np.isfinite(rows).all():
        raise ModelError(
            f"the model gave {what} that is not finite", where="rows", fix="check the file with `sis doctor -m FILE`"
        )
    return rows
