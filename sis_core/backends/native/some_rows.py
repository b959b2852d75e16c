"""Some rows of a weight, from its first to its last: what is known of it before all of it is read."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core import quant
from sis_core.arrays import Ids
from sis_core.errors import SisError
from sis_core.guarded import unpacked
from sis_core.unpacked import Unpacked

LOOKED_AT = 16


@frozen(eq=False)
class SomeRows:
    """Rows of these ``numbers`` ``(k,)``, as the format unpacks them."""

    numbers: Ids
    unpacked: Unpacked

    @classmethod
    def of(cls, weight: quant.Weight) -> SomeRows | None:
        """None where the format fails to unpack them, which is said when the weight is packed."""
        numbers = np.unique(np.linspace(0, weight.n_rows - 1, LOOKED_AT).astype(np.intp))
        rows = np.concatenate([weight.raw_rows(i, i + 1) for i in numbers.tolist()])
        try:
            return cls(numbers, unpacked(weight.format, rows, weight.n_cols))
        except SisError:
            return None
