"""The arithmetic of single ops on float32 arrays, row by row. Shapes as in `sis_core.block`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sis_core.arrays import F32, F64, I32
from sis_core.block import Norm, Rope


class BoundNorm:
    """A `Norm` with its vectors decoded."""

    def __init__(self, norm: Norm) -> None:
        self.kind, self.eps = norm.kind, np.float32(norm.eps)
        self.weight = None if norm.weight is None else norm.weight.dequantize().reshape(-1)
        self.bias = None if norm.bias is None else norm.bias.dequantize().reshape(-1)

    def __call__(self, x: F32) -> F32:
        """Normalise the last axis of ``x``."""
        if self.kind == "layer":
            x = x - x.mean(-1, keepdims=True)
        y: F32 = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps)
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias


def rotate(x: F32, positions: I32, rope: Rope) -> F32:
    """Rotate ``x`` ``(n, n_head, head_dim)`` by its rows' ``positions`` ``(n,)``."""
    angle: F64 = positions[:, None].astype(np.float64) * rope.frequencies
    cos = (np.cos(angle) * rope.magnitude).astype(np.float32)[:, None, :]
    sin = (np.sin(angle) * rope.magnitude).astype(np.float32)[:, None, :]
    half = rope.n_rot // 2
    pick = (
        (slice(0, half), slice(half, rope.n_rot))
        if rope.style == "neox"
        else (slice(0, rope.n_rot, 2), slice(1, rope.n_rot, 2))
    )
    first, second = x[..., pick[0]], x[..., pick[1]]
    y = x.copy()
    y[..., pick[0]] = first * cos - second * sin
    y[..., pick[1]] = first * sin + second * cos
    return y


def softmax(x: F32) -> F32:
    """Softmax over the last axis, in place."""
    x -= x.max(-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(-1, keepdims=True)
    return x


def softcap(x: F32, cap: float) -> F32:
    """``cap * tanh(x / cap)`` in place."""
    x /= np.float32(cap)
    np.tanh(x, out=x)
    x *= np.float32(cap)
    return x


def _silu(x: F32) -> F32:
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is infinite, and the quotient rightly 0
        return x / (1 + np.exp(-x))


def _gelu_tanh(x: F32) -> F32:
    return (
        np.float32(0.5) * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)))
    )


def _gelu(x: F32) -> F32:
    return (np.float64(0.5) * x * (1 + _erf(x * math.sqrt(0.5)))).astype(np.float32)


def _erf(x: F32) -> F64:
    """Error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26): numpy has none."""
    a = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.copysign(1 - poly * np.exp(-a * a), x)


def _relu(x: F32) -> F32:
    return np.maximum(x, np.float32(0))


ACTIVATIONS: dict[str, Callable[[F32], F32]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "relu2": lambda x: _relu(x) ** 2,
}
