"""Feed-forward networks, gated or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.backends.native import abi
from sis_core.backends.native.unsupported import Unsupported
from sis_core.block import FeedForward

if TYPE_CHECKING:
    from sis_core.backends.native.program import Program, Source, Target

OP = FeedForward


def lower(program: Program, op: FeedForward, source: Source, target: Target) -> None:
    """Up (and gate) into registers within, the activation there, and down."""
    if op.activation not in abi.ACTIVATIONS:
        raise Unsupported(f"the activation {op.activation!r}")
    if op.activation in abi.GATED_ONLY and op.gate is None:
        raise Unsupported(f"the activation {op.activation!r} without a gate")
    n = op.up.weight.n_rows
    if op.down.weight.n_cols != n or (op.gate and op.gate.weight.n_rows != n):
        raise Unsupported(f"{op.down.weight!r} after {op.up.weight!r}")
    up = program.register("up", n)
    values = {"src": up, "dst": up, "width": n, "activation": abi.ACTIVATIONS[op.activation]}
    if op.gate:
        gate = program.register("gate", n)
        program.linears(source.register, 0, [(op.gate, gate, 0, False), (op.up, up, 0, False)])
        program.emit(abi.ACT, **(values | {"src": gate, "src2": up, "flags": abi.GATED}))
    else:
        program.linears(source.register, 0, [(op.up, up, 0, False)])
        program.emit(abi.ACT, **values)
    program.linears(up, 0, [(op.down, target.register, 0, target.add)])
