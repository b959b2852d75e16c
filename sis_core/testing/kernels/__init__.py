"""What a plugin of native kernels must pass on every rung: against the numpy codecs, the float32 reference, and itself
on other threads. Its test names the rungs and subclasses the suite:

    backend = on_each_rung(X86Backend, ("portable", "avx2"))

    class TestKernels(KernelSuite): ...

Needs pytest, and the packages of the formats that have kernels: sis-q4_0, sis-q8_0, sis-kquants,
sis-ggml_quants.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"sis_core.testing.kernels.{part}" for part in ("foreign", "linears", "networks", "threads", "unpacked"))
)

from sis_core.testing.kernels.rungs import kind_of_this_machine, load, on_each_rung  # noqa: E402
from sis_core.testing.kernels.suite import KernelSuite  # noqa: E402

__all__ = ["KernelSuite", "kind_of_this_machine", "load", "on_each_rung"]
