"""The reference as a backend that can be named."""

from __future__ import annotations

from sis_core.backend import Backend, BackendOptions, Handling
from sis_core.quant import Weight


class NumpyBackend(Backend):
    """The reference. It leaves every grain to `bind`, which falls back to the reference anyway."""

    name = "numpy"
    score = 1

    def handling(self, weight: Weight, options: BackendOptions) -> Handling:
        return Handling("decoded in each step by Python", weight.nbytes)
