"""What binding an op needs, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from sis_core.arrays import F32
from sis_core.backends.numpy.linear import BoundDense
from sis_core.block import Dense, Op
from sis_core.step import Plan

Run: TypeAlias = Callable[[F32, Plan, Any], F32]
"""A bound op: hidden ``(n, n_in)``, the step's plan, the layer's state; gives ``(n, n_out)``."""


class Binder(Protocol):
    """Binds what an op is made of."""

    def dense(self, record: Dense) -> BoundDense:
        """A matrix, by whichever backend knows it."""

    def chain(self, ops: tuple[Op, ...]) -> Run:
        """Ops in order."""
