"""What goes wrong before the first layer."""

from __future__ import annotations

from sis_core.block import (
    Embedding,
)
from sis_core.testing.faults.change import Fault, setting

FAULTS = (
    Fault("forgets the scale of the embedding", setting(Embedding, scale=1.0)),
    Fault("forgets the norm of the embedding", setting(Embedding, norm=None)),
)  # fmt: skip
