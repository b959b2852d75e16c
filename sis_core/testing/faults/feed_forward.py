"""What goes wrong with feed-forward networks."""

from __future__ import annotations

from attrs import evolve

from sis_core.backends.numpy.activations import ACTIVATIONS
from sis_core.block import (
    FeedForward,
)
from sis_core.testing.faults.change import Fault, every, setting


def _no_bias_in_feed_forward(op: FeedForward) -> FeedForward:
    if op.up.bias is None:
        return op
    gate = evolve(op.gate, bias=None) if op.gate else None
    return evolve(op, up=evolve(op.up, bias=None), down=evolve(op.down, bias=None), gate=gate)


def _swapped_gate(op: FeedForward) -> FeedForward:
    return op if op.gate is None else evolve(op, gate=op.up, up=op.gate)


def _no_gate(op: FeedForward) -> FeedForward:
    return evolve(op, gate=None) if op.gate and op.activation in ACTIVATIONS else op


FAULTS = (
    Fault("forgets the biases of the feed-forward", every(FeedForward, _no_bias_in_feed_forward)),
    *(Fault(f"has the activation {name}, not the one that it is told", setting(FeedForward, activation=name))
      for name in ACTIVATIONS),
    Fault("forgets the gate", every(FeedForward, _no_gate)),
    Fault("activates the up projection, not the gate", every(FeedForward, _swapped_gate)),
)  # fmt: skip
