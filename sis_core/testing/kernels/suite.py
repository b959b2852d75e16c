"""The suite: all parts in one class."""

from __future__ import annotations

from sis_core.testing.kernels.foreign import Foreign
from sis_core.testing.kernels.linears import Linears
from sis_core.testing.kernels.networks import Networks
from sis_core.testing.kernels.threads import Threads
from sis_core.testing.kernels.unpacked import Unpacked


class KernelSuite(Linears, Unpacked, Networks, Foreign, Threads):
    """Every test takes the fixture ``backend``, as `on_each_rung` makes it. A subclass may set what `Shared` has."""
