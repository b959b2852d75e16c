"""What goes wrong after the last layer."""

from __future__ import annotations

from sis_core.block import (
    Head,
)
from sis_core.testing.faults.change import Fault, setting

FAULTS = (
    Fault("forgets the output norm", setting(Head, norm=None)),
    Fault("forgets the soft-cap of the logits", setting(Head, softcap=None)),
    Fault("forgets the scale of the logits", setting(Head, scale=1.0)),
)  # fmt: skip
