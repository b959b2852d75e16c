"""What goes wrong with experts."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from sis_core.backends.numpy.activations import ACTIVATIONS
from sis_core.experts import Experts, Stack
from sis_core.quant import Weight
from sis_core.testing.faults.change import Fault, every, setting


def _next_expert(op: Experts) -> Experts:
    def rolled(stack: Stack) -> Stack:
        return evolve(stack, weight=Weight.from_array(stack.weight.name, np.roll(stack.weight.dequantize(), 1, axis=0)))

    return evolve(op, up=rolled(op.up))


def _one_fewer(op: Experts) -> Experts:
    return op if op.n_used == 1 else evolve(op, n_used=op.n_used - 1)


def _no_gate(op: Experts) -> Experts:
    return evolve(op, gate=None) if op.gate and op.activation in ACTIVATIONS else op


def _other_half(op: Experts) -> Experts:
    return evolve(op, gate=op.up, up=op.gate) if op.gate else op


FAULTS = (
    Fault("takes another expert's up matrix", every(Experts, _next_expert)),
    Fault("uses one expert too few", every(Experts, _one_fewer)),
    Fault("forgets the gates of experts", every(Experts, _no_gate)),
    Fault("activates the ups of experts, not their gates", every(Experts, _other_half)),
    Fault("forgets the biases of experts", setting(Stack, bias=None)),
    Fault("renormalises the weights of experts", setting(Experts, renormalise=True)),
    Fault("does not renormalise the weights of experts", setting(Experts, renormalise=False)),
    *(Fault(f"weights experts by {gating}, not as it is told", setting(Experts, gating=gating))
      for gating in ("softmax", "sigmoid", "softmax_weight")),
    Fault("forgets the bias of the choice of experts", setting(Experts, selection_bias=None)),
    Fault("forgets that experts come in groups", setting(Experts, n_group=1, n_group_used=1)),
    Fault("forgets the scale of the weights of experts", setting(Experts, scale=1.0)),
    Fault("weights what comes out of experts, not what goes in", setting(Experts, scale_input=False)),
    Fault("forgets the shared expert", setting(Experts, shared=None, shared_gate=None)),
    Fault("forgets the gate of the shared expert", setting(Experts, shared_gate=None)),
)  # fmt: skip
