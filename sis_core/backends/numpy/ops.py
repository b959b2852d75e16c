"""The arithmetic of single ops on float32 arrays, row by row. Shapes as in `sis_core.block`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np

from sis_core.arrays import F32
from sis_core.block import Norm, Rope
from sis_core.step import Plan


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
            y *= self.weight
        if self.bias is not None:
            y += self.bias
        return y


class Rotation:
    """A `Rope` that keeps the cosines and sines of its last step, which all layers that rotate alike share."""

    _known: ClassVar[WeakValueDictionary[tuple[bytes, str, float], Rotation]] = WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, rope: Rope) -> None:
        self.rope = rope
        half = rope.n_rot // 2
        self._pair = (
            (slice(0, half), slice(half, rope.n_rot))
            if rope.style == "neox"
            else (slice(0, rope.n_rot, 2), slice(1, rope.n_rot, 2))
        )
        self._last: tuple[Plan, F32, F32] | None = None

    @classmethod
    def of(cls, rope: Rope) -> Rotation:
        """The one rotation of this rope and of every other that is equal to it."""
        key = (rope.frequencies.tobytes(), rope.style, rope.magnitude)
        with cls._lock:
            found = cls._known.get(key)
            if found is None:
                found = cls._known[key] = cls(rope)
            return found

    def __call__(self, x: F32, plan: Plan) -> F32:
        """Rotate ``x`` ``(n, n_head, head_dim)`` by the positions of the step's rows."""
        cos, sin = self._waves(plan)
        a, b = self._pair
        first, second = x[..., a], x[..., b]
        y = x.copy()
        y[..., a] = first * cos - second * sin
        y[..., b] = first * sin + second * cos
        return y

    def _waves(self, plan: Plan) -> tuple[F32, F32]:
        """Cosine and sine ``(n, 1, n_rot // 2)``; two threads that alternate only compute them more often."""
        last = self._last
        if last is None or last[0] is not plan:
            angle = plan.positions[:, None, None].astype(np.float64) * self.rope.frequencies
            cos = (np.cos(angle) * self.rope.magnitude).astype(np.float32)
            sin = (np.sin(angle) * self.rope.magnitude).astype(np.float32)
            last = self._last = (plan, cos, sin)
        return last[1], last[2]


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
