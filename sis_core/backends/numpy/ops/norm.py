"""Root-mean-square and layer norms."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32
from sis_core.backends.numpy.bound import Binder, Run
from sis_core.block import Norm

OP = Norm


def bind(op: Norm, binder: Binder) -> Run:
    """Normalise each row."""
    norm = BoundNorm(op)
    return lambda x, plan, state: norm(x)


class BoundNorm:
    """A `Norm` with its vectors decoded."""

    def __init__(self, norm: Norm) -> None:
        self.kind, self.eps, self.pieces = norm.kind, np.float32(norm.eps), norm.pieces
        self.weight = None if norm.weight is None else norm.weight.dequantize().reshape(-1)
        self.bias = None if norm.bias is None else norm.bias.dequantize().reshape(-1)

    def __call__(self, x: F32) -> F32:
        """Normalise the last axis of ``x``."""
        shape = x.shape
        if self.pieces != 1:
            x = x.reshape(*shape[:-1], self.pieces, -1)
        if self.kind == "layer":
            x = x - x.mean(-1, keepdims=True)
        y: F32 = (x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)).reshape(shape)
        if self.weight is not None:
            y *= self.weight
        if self.bias is not None:
            y += self.bias
        return y
