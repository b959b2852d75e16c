"""What goes wrong with single matrices."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from sis_core.block import (
    Dense,
)
from sis_core.quant import Weight
from sis_core.testing.faults.change import Fault, every, setting


def _transposed(dense: Dense) -> Dense:
    weight = dense.weight
    if weight.n_rows != weight.n_cols:
        return dense
    return evolve(dense, weight=Weight.from_array(weight.name, np.ascontiguousarray(weight.dequantize().T)))


FAULTS = (
    Fault("forgets the biases of linears", setting(Dense, bias=None)),
    Fault("multiplies by the transposed matrix, where it is square", every(Dense, _transposed)),
)  # fmt: skip
