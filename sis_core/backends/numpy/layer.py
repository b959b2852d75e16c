"""A block as a chain of numpy calls. Each linear may belong to another backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from sis_core.arrays import F32
from sis_core.backend import Linear
from sis_core.backends.numpy.attention import BoundAttention, KVState
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops import ACTIVATIONS, BoundNorm
from sis_core.block import KV, Attention, Block, Dense, FeedForward, Norm, Op, Residual
from sis_core.errors import BackendError
from sis_core.quant import Weight
from sis_core.step import Plan

Bind: TypeAlias = Callable[[Weight], Linear]
Run: TypeAlias = Callable[[F32, Plan, Any], F32]


@frozen(eq=False)
class ReferenceLayer:
    """Runs any `Block`; ops it does not know must bring ``compute`` (see `sis_core.block.CustomOp`)."""

    kv: KV | None
    run: Run

    @classmethod
    def of(cls, block: Block, bind: Bind) -> ReferenceLayer:
        return cls(block.state, _chain(block.ops, bind))

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> KVState | None:
        return KVState(self.kv, kv_type, n_pages, page_size) if self.kv else None

    def __call__(self, hidden: F32, plan: Plan, state: KVState | None) -> F32:
        return self.run(hidden, plan, state)


def _chain(ops: tuple[Op, ...], bind: Bind) -> Run:
    steps = [_bind_op(op, bind) for op in ops]

    def run(x: F32, plan: Plan, state: Any) -> F32:
        for step in steps:
            x = step(x, plan, state)
        return x

    return run


def _bind_op(op: Op, bind: Bind) -> Run:
    def dense(record: Dense) -> BoundDense:
        return BoundDense.of(record, bind(record.weight))

    match op:
        case Norm():
            norm = BoundNorm(op)
            return lambda x, plan, state: norm(x)
        case Dense():
            linear = dense(op)
            return lambda x, plan, state: linear(x)
        case Attention():
            return BoundAttention(op, dense(op.q), dense(op.k), dense(op.v), dense(op.out))
        case FeedForward():
            return _feed_forward(op, dense(op.up), dense(op.down), dense(op.gate) if op.gate else None)
        case Residual():
            return _residual([_chain(branch, bind) for branch in op.branches])
        case _ if callable(compute := getattr(op, "compute", None)):
            return lambda x, plan, state: compute(x)
        case _:
            raise BackendError(f"no backend knows the op {type(op).__name__}", where="block")


def _feed_forward(op: FeedForward, up: BoundDense, down: BoundDense, gate: BoundDense | None) -> Run:
    if op.activation not in ACTIVATIONS:
        raise BackendError(f"no backend knows the activation {op.activation!r}", where="block")
    activation = ACTIVATIONS[op.activation]
    if gate is None:
        return lambda x, plan, state: down(activation(up(x)))
    return lambda x, plan, state: down(activation(gate(x)) * up(x))


def _residual(branches: list[Run]) -> Run:
    def run(x: F32, plan: Plan, state: Any) -> F32:
        y = x
        for branch in branches:
            y = y + branch(x, plan, state)
        return y

    return run
