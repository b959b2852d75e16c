"""What the parts of the suite share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sis_core.arrays import F32
from sis_core.backends.native import NativeBackend
from sis_core.quant import Weight
from sis_core.testing.kernels.weights import QUANTIZED, in_bfloats, in_halves, rounded
from sis_core.testing.networks import VARIANTS, Variant


class Shared:
    """
    Attributes:
        variants: the networks of tests that are about steps and threads.
        kv_types: the types of cache that every network is tested with.
        halves: the rungs that multiply F16 weights with activations in half precision,
        bfloats: and those that multiply BF16 weights with activations in bfloat16.
    """

    variants: ClassVar[Sequence[Variant]] = VARIANTS
    kv_types: ClassVar[Sequence[str]] = ("f32", "f16")
    halves: ClassVar[Sequence[str]] = ()
    bfloats: ClassVar[Sequence[str]] = ()

    def seen(self, backend: NativeBackend, name: str, x: F32) -> F32:
        """Activations as the backend's kernels for a format see them."""
        if name in QUANTIZED:
            return rounded(x)
        if name == "BF16" and backend.library().isa_name in self.bfloats:
            return in_bfloats(x)
        return in_halves(x) if name == "F16" and backend.library().isa_name in self.halves else x

    def product(self, backend: NativeBackend, weight: Weight, x: F32) -> npt.NDArray[np.float64]:
        """The exact product with these."""
        return self.seen(backend, weight.format.name, x).astype(np.float64) @ weight.dequantize().astype(np.float64).T
