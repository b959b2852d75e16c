"""``x @ weight.T`` without ever holding the whole weight in float32."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backend import Linear
from sis_core.block import Dense
from sis_core.quant import Weight


@frozen(eq=False)
class ReferenceLinear:
    """Decodes one row panel at a time and multiplies it with numpy."""

    weight: Weight

    def __call__(self, x: F32) -> F32:
        """``(n, n_in)`` to ``(n, n_out)``; FormatError where a scale that is no number makes results that are none."""
        y = np.empty((len(x), self.weight.n_rows), np.float32)
        for start, panel in self.weight.panels():
            y[:, start : start + len(panel)] = (panel @ x.T).T  # for few rows BLAS is faster this way round
        if not np.isfinite(y).all():
            self.weight.check_numbers()
        return y


@frozen(eq=False)
class BoundDense:
    """A `Dense` whose weight some backend has bound, and whose bias is decoded once."""

    linear: Linear
    bias: F32 | None

    @classmethod
    def of(cls, dense: Dense, linear: Linear) -> BoundDense:
        return cls(linear, None if dense.bias is None else dense.bias.dequantize().reshape(-1))

    def __call__(self, x: F32) -> F32:
        y = self.linear(x)
        return y if self.bias is None else y + self.bias
