"""Experts: rows that use the same one are multiplied together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backends.numpy.activations import ACTIVATIONS, GATED
from sis_core.backends.numpy.bound import Binder, Run
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.feed_forward import bind as bind_feed_forward
from sis_core.backends.numpy.routing import Routing, sigmoid
from sis_core.block import Dense
from sis_core.errors import BackendError
from sis_core.experts import Experts, Stack
from sis_core.quant import Weight
from sis_core.step import Plan

OP = Experts


def bind(op: Experts, binder: Binder) -> Run:
    """The weighted sum of what the chosen experts make of each row, and the shared one where there is one."""
    router, routing, experts = binder.dense(op.router), Routing.of(op), _experts(op, binder)
    shared = _shared(op, binder)

    def run(x: F32, plan: Plan, state: Any) -> F32:
        chosen, weights = routing(router(x))
        y = np.zeros((len(x), op.n_out(x.shape[1])), np.float32)
        for number in np.unique(chosen).tolist():
            rows, slots = np.nonzero(chosen == number)
            weight = weights[rows, slots][:, None]
            if op.scale_input:
                y[rows] += experts[number](x[rows] * weight)
            else:
                y[rows] += experts[number](x[rows]) * weight
        return y if shared is None else y + shared(x, plan, state)

    return run


@frozen
class _Expert:
    """One expert, bound."""

    up: BoundDense
    down: BoundDense
    gate: BoundDense | None
    activation: str

    def __call__(self, x: F32) -> F32:
        if self.gate is None:
            return self.down(ACTIVATIONS[self.activation](self.up(x)))
        return self.down(GATED[self.activation](self.gate(x), self.up(x)))


def _experts(op: Experts, binder: Binder) -> list[_Expert]:
    """Each expert; BackendError for an activation that nobody knows."""
    if op.activation not in (GATED if op.gate else ACTIVATIONS):
        raise BackendError(f"no backend knows the activation {op.activation!r}", where="block")
    gates = _denses(op.gate, binder) if op.gate else [None] * op.n_expert
    parts = zip(_denses(op.up, binder), _denses(op.down, binder), gates, strict=True)
    return [_Expert(*part, op.activation) for part in parts]


def _denses(stack: Stack, binder: Binder) -> Sequence[BoundDense]:
    biases = None if stack.bias is None else stack.bias.dequantize()

    def bias(i: int) -> Weight | None:
        return None if biases is None or stack.bias is None else Weight.from_array(stack.bias.name, biases[i])

    return [binder.dense(Dense(stack.expert(i), bias(i))) for i in range(stack.n_expert)]


def _shared(op: Experts, binder: Binder) -> Run | None:
    if op.shared is None:
        return None
    run = bind_feed_forward(op.shared, binder)
    if op.shared_gate is None:
        return run
    gate = binder.dense(op.shared_gate)
    return lambda x, plan, state: run(x, plan, state) * sigmoid(gate(x))
