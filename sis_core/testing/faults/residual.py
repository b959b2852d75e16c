"""What goes wrong with branches."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from sis_core.block import (
    Block,
    Norm,
    Residual,
)
from sis_core.testing.faults.change import Fault, every, setting


def _without_input(block: Block) -> Block:
    if any(isinstance(op, Residual) and len(op.branches) != 1 for op in block.ops):
        return block
    ops = [inner for op in block.ops for inner in (op.branches[0] if isinstance(op, Residual) else (op,))]
    return evolve(block, ops=tuple(ops))


def _one_after_the_other(block: Block) -> Block:
    if not any(isinstance(op, Residual) and len(op.branches) > 1 for op in block.ops):
        return block
    ops = [Residual((branch,), op.scale) for op in block.ops if isinstance(op, Residual) for branch in op.branches]
    return evolve(block, ops=tuple(ops))


def _at_once(block: Block) -> Block:
    if any(not isinstance(op, Residual) for op in block.ops) or len(block.ops) < 2:
        return block
    branches = tuple(branch for op in block.ops if isinstance(op, Residual) for branch in op.branches)
    return evolve(block, ops=(Residual(branches),))


def _no_post_norm(residual: Residual) -> Residual:
    def cut(branch: tuple[Any, ...]) -> tuple[Any, ...]:
        return branch[:-1] if len(branch) > 2 and isinstance(branch[-1], Norm) else branch

    branches = tuple(cut(branch) for branch in residual.branches)
    same = all(a is b for a, b in zip(branches, residual.branches, strict=True))
    return residual if same else evolve(residual, branches=branches)


FAULTS = (
    Fault("forgets the norm after a branch", every(Residual, _no_post_norm)),
    Fault("forgets to add a branch to what went into it", every(Block, _without_input)),
    Fault("forgets the factor on branches", setting(Residual, scale=1.0)),
    Fault("runs parallel branches one after the other", every(Block, _one_after_the_other)),
    Fault("gives branches that follow each other the same input", every(Block, _at_once)),
)  # fmt: skip
