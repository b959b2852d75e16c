"""Whether what follows in a network fits what comes before: found when a model is loaded, not in its first step."""

from __future__ import annotations

from collections.abc import Iterator

from sis_core.block import Attention, Block, Network, Norm, Op, Residual
from sis_core.errors import ModelError


def check_widths(network: Network, name: str, where: str = "") -> None:
    """ModelError when an op of a family does not fit the rows that reach it."""
    for i, block in enumerate(network.blocks):
        for fault in _block_faults(block, network.n_embd):
            raise ModelError(
                f"the family {name} as installed cannot run this file: in layer {i}, {fault}",
                where=where,
                fix="report it to the author of the family",
            )


def _block_faults(block: Block, n_embd: int) -> Iterator[str]:
    for op in block.ops:
        for branch in op.branches if isinstance(op, Residual) else ((op,),):
            n = n_embd
            for part in branch:
                if isinstance(part, Op):  # a custom op takes and gives rows of n_embd
                    yield from _faults(part, n)
                n = part.n_out(n) if isinstance(part, Op) else n_embd
            if n != n_embd:
                yield f"{type(branch[-1]).__name__} gives rows of {n} values, not {n_embd}"


def _faults(op: Op, n: int) -> Iterator[str]:
    """What of an op does not fit rows of ``n`` values."""
    yield from (f"tensor {w.name} reads rows of {w.n_cols} values, not {n}" for w in op.reads() if w.n_cols != n)
    if isinstance(op, Norm):
        for weight in (op.weight, op.bias):
            if weight is not None and weight.n_cols != n:
                yield f"tensor {weight.name} normalises rows of {weight.n_cols} values, not {n}"
    if isinstance(op, Attention):
        yield from _head_norm_faults("q_norm", op.q_norm, op.n_head, op.head_dim)
        yield from _head_norm_faults("k_norm", op.k_norm, op.n_head_kv, op.head_dim)


def _head_norm_faults(what: str, norm: Norm | None, n_head: int, head_dim: int) -> Iterator[str]:
    if norm is None or norm.weight is None:
        return
    n = norm.weight.n_cols
    if n not in (head_dim, n_head * head_dim):
        yield (
            f"{what} {norm.weight.name} has {n} values: {head_dim} normalise each head, {n_head * head_dim} all "
            f"{n_head} heads at once"
        )
    elif norm.bias is not None and norm.bias.n_cols != n:
        yield f"{what} {norm.bias.name} has {norm.bias.n_cols} values, not {n}"
