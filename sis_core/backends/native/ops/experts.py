"""Experts: a router, what each row's experts make of it, and the shared one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.backends.native import abi
from sis_core.backends.native.ops import feed_forward
from sis_core.backends.native.unsupported import Unsupported
from sis_core.experts import Experts, Stack

if TYPE_CHECKING:
    from sis_core.backends.native.program import Program, Source, Target

OP = Experts


def lower(program: Program, op: Experts, source: Source, target: Target) -> None:
    """The shared expert first; then route, multiply by expert, and combine in the order in which each row chose."""
    _check(op, source, target)
    n, add, shared = target.cols, target.add, -1
    if op.shared and op.shared_gate:
        shared = program.register("shared expert", n)
        feed_forward.lower(program, op.shared, source, type(target)(shared, n, False))
    elif op.shared:
        feed_forward.lower(program, op.shared, source, target)
        add = True
    logits = program.register("logits of experts", op.n_expert + 1)
    gate = [(op.shared_gate, logits, op.n_expert, False)] if op.shared_gate else []
    program.linears(source.register, 0, [(op.router, logits, 0, False), *gate])
    experts = _record(program, op)
    program.emit(abi.ROUTE, src=logits, experts=experts)
    program.emit(abi.EXPERTS, src=source.register, experts=experts)
    program.emit(abi.COMBINE, dst=target.register, flags=abi.ADD if add else 0, experts=experts)
    if op.shared_gate:
        program.emit(
            abi.GATE, src=shared, src2=logits, src2_at=op.n_expert, dst=target.register, flags=abi.ADD, width=n
        )


def _record(program: Program, op: Experts) -> int:
    """The address of what native code is told of the experts."""
    n_used, n_ff, n_out = op.n_used, op.up.n_out, op.down.n_out
    ups = program.register("up of experts", n_used * n_ff)
    flags = abi.RENORMALISE * op.renormalise | abi.SCALE_INPUT * op.scale_input | abi.HALVES * (op.up.half is not None)
    return program.keep(abi.Experts(
        n_expert=op.n_expert, n_used=n_used, n_ff=n_ff, n_out=n_out, gating=abi.GATINGS[op.gating], n_group=op.n_group,
        n_group_used=op.n_group_used, activation=abi.ACTIVATIONS[op.activation], flags=flags,
        scale=op.scale, chosen=program.register("chosen experts", 3 * n_used), up_values=ups,
        selection_bias=program.vector(op.selection_bias), gate_bias=program.vector(op.gate.bias if op.gate else None),
        up_bias=program.vector(op.up.bias), down_bias=program.vector(op.down.bias),
        gate=program.matrix(op.gate.weight) if op.gate else None, up=program.matrix(op.up.weight),
        down=program.matrix(op.down.weight),
    ))  # fmt: skip


def _check(op: Experts, source: Source, target: Target) -> None:
    n, n_ff = op.n_expert, op.up.n_out
    if op.gating not in abi.GATINGS or op.activation not in abi.ACTIVATIONS:
        raise Unsupported(f"the gating {op.gating!r} or the activation {op.activation!r}")
    if op.activation in abi.GATED_ONLY and op.gate is None:
        raise Unsupported(f"the activation {op.activation!r} without a gate")
    if not (1 <= op.n_used <= n <= abi.MAX_EXPERTS and 1 <= op.n_group_used <= op.n_group) or n % op.n_group:
        raise Unsupported(f"{op.n_used} of {n} experts in {op.n_group_used} of {op.n_group} groups")
    if op.n_used > n // op.n_group * op.n_group_used or (op.n_group > 1 and n // op.n_group < 2):
        raise Unsupported(f"{op.n_used} of {n} experts in {op.n_group_used} of {op.n_group} groups")
    ups, downs = (n, n_ff, source.cols), (n, target.cols, n_ff)
    shapes = [(op.up, ups), (op.down, downs), *([(op.gate, ups)] if op.gate else [])]
    halves = op.up.half, op.gate and op.gate.half, op.down.half
    if halves != (None, None, None) and (halves != (1, 0, None) or not op.gate or op.gate.weight is not op.up.weight):
        raise Unsupported(f"halves of {op.up.weight!r} that are not a gate and its up")
    for stack, shape in shapes:
        _check_stack(stack, shape)
    if op.router.weight.n_rows != n or (op.selection_bias and op.selection_bias.n_cols != n):
        raise Unsupported(f"a router {op.router.weight!r} of {n} experts")
    if op.shared_gate and (op.shared is None or op.shared_gate.weight.n_rows != 1):
        raise Unsupported(f"{op.shared_gate.weight!r} as the gate of a shared expert")


def _check_stack(stack: Stack, shape: tuple[int, int, int]) -> None:
    n_expert, n_out, n_in = shape
    in_file = (n_expert, n_out if stack.half is None else 2 * n_out, n_in)
    if stack.weight.shape != in_file or n_out % abi.TILE:
        raise Unsupported(f"{stack.weight!r} for experts {shape}, in whole tiles of {abi.TILE} rows")
    if stack.bias and stack.bias.shape != shape[:2]:
        raise Unsupported(f"{stack.weight!r} with the biases {stack.bias!r}")
