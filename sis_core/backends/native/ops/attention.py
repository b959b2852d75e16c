"""Attention over the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.backends.native import abi
from sis_core.backends.native.unsupported import Unsupported
from sis_core.block import KV, Attention, Norm, Rope

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
    for name, n in (("slopes", op.alibi.size if op.alibi is not None else op.n_head),
                    ("sinks", op.sinks.n_cols if op.sinks else op.n_head)):  # fmt: skip
        if n != op.n_head:
            raise Unsupported(f"{n} {name} for {op.n_head} heads")
    n_k, n_v = op.n_head_kv * k_dim, op.n_head_kv * v_dim
    qkv = program.register("queries, keys and values", n_q + n_k + n_v)
    parts, width = [(op.q_norm, 0, op.n_head)], n_q
    if op.k and op.v:
        if (op.k.weight.n_rows, op.v.weight.n_rows) != (n_k, n_v):
            raise Unsupported(f"{op.k.weight!r} and {op.v.weight!r} for {state}")
        parts.append((op.k_norm, n_q, op.n_head_kv))
        width = n_q + n_k + n_v
        projections = [(op.q, qkv, 0, False), (op.k, qkv, n_q, False), (op.v, qkv, n_q + n_k, False)]
    else:
        projections = [(op.q, qkv, 0, False)]
    program.linears(source.register, 0, projections)
    if op.clamp is not None:
        program.emit(abi.CLAMP, dst=qkv, width=width, cap=op.clamp)
    if op.norm_first:
        _normalise(program, qkv, k_dim, parts)
    if op.rope:
        _rotate(program, op.rope, qkv, k_dim, parts)
    if not op.norm_first:
        _normalise(program, qkv, k_dim, parts)
    if op.q_scale:
        at = program.rotations.index(op.q_scale)
        program.emit(abi.SCALE, dst=qkv, width=n_q, scale=1.0, rope=at, flags=abi.BY_POSITION)
    heads = {
        "n_head": op.n_head, "n_head_kv": op.n_head_kv, "k_dim": k_dim, "v_dim": v_dim, "layer": program.layer,
        "table": program.table,
    }  # fmt: skip
    if op.k:
        program.emit(abi.STORE, src=qkv, src2=qkv, src_at=n_q, src2_at=n_q + n_k, **heads)
    # What a head makes of a row may lie where its query was.
    mixed = qkv if k_dim == v_dim else program.register("attention", op.n_head * v_dim)
    program.emit(
        abi.ATTEND, src=qkv, dst=mixed, flags=program.form(op.out.weight), window=op.window or 0,
        scale=op.scale, cap=op.softcap or 0.0,
        watched=program.watched(op.n_head) if op.window is None else 0,
        slopes=None if op.alibi is None else program.floats(op.alibi), sinks=program.vector(op.sinks), **heads,
    )  # fmt: skip
    program.linears(mixed, 0, [(op.out, target.register, 0, target.add)])


def _normalise(program: Program, qkv: int, k_dim: int, parts: list[tuple[Norm | None, int, int]]) -> None:
    for norm, at, count in parts:
        if norm and norm.weight and norm.weight.n_cols == count * k_dim:
            program.norm(norm, qkv, at, qkv, at, count * k_dim, 1, add=False)
        elif norm:
            program.norm(norm, qkv, at, qkv, at, k_dim, count, add=False)


def _rotate(program: Program, rope: Rope, qkv: int, k_dim: int, parts: list[tuple[Norm | None, int, int]]) -> None:
    if rope.n_rot > k_dim or rope.style not in ("norm", "neox"):
        raise Unsupported(f"a rope of {rope.n_rot} values, {rope.style}")
    for _, at, count in parts:
        program.emit(
            abi.ROPE, dst=qkv, dst_at=at, width=k_dim, count=count, n_rot=rope.n_rot,
            rope=program.rotations.index(rope), flags=abi.NEOX if rope.style == "neox" else 0,
        )  # fmt: skip
