"""Feed-forward networks, gated or not."""

from __future__ import annotations

from sis_core.backends.numpy.activations import ACTIVATIONS, GATED
from sis_core.backends.numpy.bound import Binder, Run
from sis_core.block import FeedForward
from sis_core.errors import BackendError

OP = FeedForward


def bind(op: FeedForward, binder: Binder) -> Run:
    """``down(activation(gate(x)) * up(x))``; BackendError for an activation that nobody knows."""
    if op.activation not in (GATED if op.gate else ACTIVATIONS):
        raise BackendError(f"no backend knows the activation {op.activation!r}", where="block")
    up, down = binder.dense(op.up), binder.dense(op.down)
    if op.gate is None:
        activation = ACTIVATIONS[op.activation]
        return lambda x, plan, state: down(activation(up(x)))
    gate, gated = binder.dense(op.gate), GATED[op.activation]
    return lambda x, plan, state: down(gated(gate(x), up(x)))
