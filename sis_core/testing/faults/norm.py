"""What goes wrong with norms."""

from __future__ import annotations

from sis_core.block import (
    Norm,
)
from sis_core.testing.faults.change import Fault, setting

FAULTS = (
    Fault("forgets the biases of norms", setting(Norm, bias=None)),
    Fault("forgets the weights of norms", setting(Norm, weight=None)),
    Fault("does not subtract the mean: an RMS norm for a layer norm", setting(Norm, kind="rms")),
    Fault("subtracts the mean: a layer norm for an RMS norm", setting(Norm, kind="layer")),
    Fault("forgets the norm's eps", setting(Norm, eps=0.0)),
)  # fmt: skip
