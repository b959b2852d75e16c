"""Functions of single values, on float32 arrays of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sis_core.arrays import F32


def softcap(x: F32, cap: float) -> F32:
    """``cap * tanh(x / cap)`` in place."""
    x /= np.float32(cap)
    np.tanh(x, out=x)
    x *= np.float32(cap)
    return x


def _silu(x: F32) -> F32:
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is infinite, and the quotient rightly 0
        y = np.exp(-x)
    y += 1
    return np.divide(x, y, out=y)


def _gelu_tanh(x: F32) -> F32:
    with np.errstate(over="ignore"):  # the tanh of infinity is rightly 1
        y = x * x
        y *= np.float32(0.044715)
        y += 1
        y *= x
        y *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(y, out=y)
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


STEP = 1 / 64
NODES = np.arange(0, 6 + STEP, STEP)  # erf(6) is 1 in float64
ERF = np.array([math.erf(node) for node in NODES])
SLOPE = 2 / math.sqrt(math.pi) * np.exp(-NODES * NODES)


def erf(x: F32) -> F32:
    """Error function, right to the last bit but one of float32; numpy has none.

    Taylor series around the nearest of the nodes, whose values the standard library knows: with a = node and h the
    distance, erf(a + h) = erf(a) + erf'(a) · (h − a h² + (2a² − 1) h³ / 3 − (2a³ − 3a) h⁴ / 6), to 1e-11.
    """
    size = np.fmin(np.abs(x), 6.0).astype(np.float64)  # fmin: a NaN must find a node too; x itself carries it on
    index = np.rint(size / STEP).astype(np.intp)
    a = NODES[index]
    h = size - a
    series = h * (1 - h * (a - h * ((2 * a * a - 1) / 3 - h * (2 * a * a - 3) * a / 6)))
    y: F32 = np.copysign(ERF[index] + SLOPE[index] * series, x).astype(np.float32)
    return y


def _gelu(x: F32) -> F32:
    y = erf(x * np.float32(math.sqrt(0.5)))
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def _relu(x: F32) -> F32:
    return np.maximum(x, np.float32(0))


def _relu2(x: F32) -> F32:
    y = _relu(x)
    y *= y
    return y


ACTIVATIONS: dict[str, Callable[[F32], F32]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "relu2": _relu2,
}


def _swiglu_oai(gate: F32, up: F32) -> F32:
    gate = np.minimum(gate, np.float32(7))
    with np.errstate(over="ignore"):
        gate = gate / (1 + np.exp(np.float32(-1.702) * gate))
    gate *= np.clip(up, np.float32(-7), np.float32(7)) + 1
    return gate


def _product(activation: Callable[[F32], F32]) -> Callable[[F32, F32], F32]:
    return lambda gate, up: activation(gate) * up


GATED: dict[str, Callable[[F32, F32], F32]] = {
    **{name: _product(activation) for name, activation in ACTIVATIONS.items()},
    "swiglu_oai": _swiglu_oai,
}
"""What an activation makes of a gate and of what it lets through."""
