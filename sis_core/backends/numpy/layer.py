"""A block as a chain of numpy calls. Each linear may belong to another backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from sis_core.arrays import F32
from sis_core.backend import LayerState, Linear
from sis_core.backends.numpy import ops as folder
from sis_core.backends.numpy.bound import Run
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.attention import KVState
from sis_core.backends.numpy.pages import StatePages
from sis_core.backends.op_files import by_record
from sis_core.block import KV, Block, CustomOp, Dense, Op, State
from sis_core.errors import BackendError
from sis_core.quant import Weight
from sis_core.step import Plan

Bind: TypeAlias = Callable[[Weight], Linear]
BINDERS = by_record(folder, "bind")


@frozen(eq=False)
class ReferenceLayer:
    """Runs any `Block`; ops it does not know must bring ``compute`` (see `sis_core.block.CustomOp`)."""

    state: State | None
    run: Run

    @classmethod
    def of(cls, block: Block, bind: Bind) -> ReferenceLayer:
        return cls(block.state, BlockBinder(bind).chain(block.ops))

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> LayerState | None:
        match self.state:
            case None:
                return None
            case KV():
                return KVState(self.state, kv_type, n_pages, page_size)
            case _:
                return StatePages(self.state, kv_type, n_pages, page_size)

    def __call__(self, hidden: F32, plan: Plan, state: Any) -> F32:
        return self.run(hidden, plan, state)


@frozen
class BlockBinder:
    """Binds the ops of a block, their matrices by ``bind``."""

    bind: Bind

    def dense(self, record: Dense) -> BoundDense:
        """A matrix, by whichever backend knows it."""
        return BoundDense.of(record, self.bind(record.weight))

    def chain(self, ops: tuple[Op, ...]) -> Run:
        """Ops in order."""
        steps = [self.op(op) for op in ops]

        def run(x: F32, plan: Plan, state: Any) -> F32:
            for step in steps:
                x = step(x, plan, state)
            return x

        return run

    def op(self, op: Op) -> Run:
        """One op, or the ``compute`` of one that core does not know; BackendError when it has none."""
        if type(op) in BINDERS:
            bound: Run = BINDERS[type(op)](op, self)
            return bound
        if isinstance(op, CustomOp):
            return op.compute
        raise BackendError(f"no backend knows the op {type(op).__name__}", where="block")
