"""One matrix and its bias."""

from __future__ import annotations

from sis_core.backends.numpy.bound import Binder, Run
from sis_core.block import Dense

OP = Dense


def bind(op: Dense, binder: Binder) -> Run:
    """Multiply each row."""
    linear = binder.dense(op)
    return lambda x, plan, state: linear(x)
