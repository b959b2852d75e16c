"""Rotary positions, computed once a step for all layers that rotate alike."""

from __future__ import annotations

import threading
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np

from sis_core.arrays import F32
from sis_core.block import Rope
from sis_core.step import Ints, Plan


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
        self._last: tuple[Ints, F32, F32] | None = None  # places, cosines, sines

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
        if last is None or last[0] is not plan.places:  # the kinds of a step's plans share them
            angle = plan.positions[:, None, None].astype(np.float64) * self.rope.frequencies
            cos = (np.cos(angle) * self.rope.magnitude).astype(np.float32)
            sin = (np.sin(angle) * self.rope.magnitude).astype(np.float32)
            last = self._last = (plan.places, cos, sin)
        return last[1], last[2]
