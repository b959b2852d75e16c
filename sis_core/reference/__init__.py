"""The numpy reference: every record of `sis_core.block`, in float32, correct first. It always answers."""

from sis_core.reference.forward import PagedCache, SequentialForward
from sis_core.reference.layer import ReferenceLayer
from sis_core.reference.linear import ReferenceLinear

__all__ = ["PagedCache", "ReferenceLayer", "ReferenceLinear", "SequentialForward"]
