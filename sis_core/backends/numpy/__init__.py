"""The numpy reference: every record of `sis_core.block`, in float32, correct first. It always answers."""

from sis_core.backends.numpy.backend import NumpyBackend
from sis_core.backends.numpy.forward import SequentialForward
from sis_core.backends.numpy.layer import ReferenceLayer
from sis_core.backends.numpy.linear import ReferenceLinear

__all__ = ["NumpyBackend", "ReferenceLayer", "ReferenceLinear", "SequentialForward"]
