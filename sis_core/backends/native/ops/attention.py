"""Attention over the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.backends.native import abi
from sis_core.backends.native.unsupported import Unsupported
from sis_core.block import KV, Attention

if TYPE_CHECKING:
    from sis_core.backends.native.program import Program, Source, Target

OP = Attention


def lower(program: Program, op: Attention, source: Source, target: Target) -> None:
    """Project, normalise, rotate, store, attend, and project again."""
    state = program.take_state()
    if not isinstance(state, KV) or state.n_head_kv != op.n_head_kv:
        raise Unsupported(f"an attention of {op.n_head_kv} key heads over {state}")
    n_q, k_dim, v_dim = op.q.weight.n_rows, state.k_dim, state.v_dim
    if op.n_head_kv < 1 or op.n_head % op.n_head_kv or n_q != op.n_head * k_dim:
        raise Unsupported(f"{op.n_head} heads over {op.n_head_kv} of {k_dim} values")
    if max(k_dim, v_dim) > abi.MAX_HEAD:
        raise Unsupported(f"heads of {k_dim} and {v_dim} values")
    if op.out.weight.n_cols != op.n_head * v_dim:
        raise Unsupported(f"{op.out.weight!r} after heads of {v_dim} values")
    if (op.window is not None and op.window < 1) or op.softcap == 0 or not op.causal:
        raise Unsupported(f"a window of {op.window}, a cap of {op.softcap}, or tokens that see those after them")
    n_k, n_v = op.n_head_kv * k_dim, op.n_head_kv * v_dim
    qkv = program.register("inner 0", n_q + n_k + n_v)
    parts = [(op.q_norm, 0, op.n_head)]
    if op.k and op.v:
        if (op.k.weight.n_rows, op.v.weight.n_rows) != (n_k, n_v):
            raise Unsupported(f"{op.k.weight!r} and {op.v.weight!r} for {state}")
        parts.append((op.k_norm, n_q, op.n_head_kv))
        projections = [(op.q, qkv, 0, False), (op.k, qkv, n_q, False), (op.v, qkv, n_q + n_k, False)]
    else:
        projections = [(op.q, qkv, 0, False)]
    program.linears(source.register, 0, projections)
    for norm, at, count in parts:
        if norm:
            program.norm(norm, qkv, at, qkv, at, k_dim, count, add=False)
    if op.rope:
        if op.rope.n_rot > k_dim or op.rope.style not in ("norm", "neox"):
            raise Unsupported(f"a rope of {op.rope.n_rot} values, {op.rope.style}")
        for _, at, count in parts:
            program.emit(
                abi.ROPE, dst=qkv, dst_at=at, width=k_dim, count=count, n_rot=op.rope.n_rot,
                rope=program.rotations.index(op.rope), flags=abi.NEOX if op.rope.style == "neox" else 0,
            )  # fmt: skip
    heads = {
        "n_head": op.n_head, "n_head_kv": op.n_head_kv, "k_dim": k_dim, "v_dim": v_dim, "layer": program.layer,
        "table": program.table,
    }  # fmt: skip
    if op.k:
        program.emit(abi.STORE, src=qkv, src2=qkv, src_at=n_q, src2_at=n_q + n_k, **heads)
    mixed = program.register("inner 1", op.n_head * v_dim)
    program.emit(abi.ATTEND, src=qkv, dst=mixed, window=op.window or 0, scale=op.scale, cap=op.softcap or 0.0, **heads)
    program.linears(mixed, 0, [(op.out, target.register, 0, target.add)])
