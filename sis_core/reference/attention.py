"""Causal attention over paged keys and values."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32
from sis_core.block import KV, Attention
from sis_core.errors import BackendError
from sis_core.reference.linear import BoundDense
from sis_core.reference.ops import BoundNorm, rotate, softcap, softmax
from sis_core.step import Group, Plan

KV_TYPES = {"f32": np.float32, "f16": np.float16}
QUERY_ROWS = 128  # bounds the scores held at once to 128 rows of one key head


class KVState:
    """Keys ``(n_slots, n_head_kv, k_dim)`` and values ``(n_slots, n_head_kv, v_dim)``, page after page."""

    def __init__(self, kv: KV, kv_type: str, n_pages: int, page_size: int) -> None:
        if kv_type not in KV_TYPES:
            raise BackendError(
                f"the numpy reference has no kv_type {kv_type!r}", where="cache", fix=f"choose {' or '.join(KV_TYPES)}"
            )
        dtype = KV_TYPES[kv_type]
        self.page_size = page_size
        self.keys = np.zeros((n_pages * page_size, kv.n_head_kv, kv.k_dim), dtype)
        self.values = np.zeros((n_pages * page_size, kv.n_head_kv, kv.v_dim), dtype)

    @property
    def page_nbytes(self) -> int:
        return self.page_size * (self.keys[0].nbytes + self.values[0].nbytes)

    def _slots(self, page: int) -> slice:
        return slice(page * self.page_size, (page + 1) * self.page_size)

    def copy_page(self, source: int, target: int) -> None:
        for array in (self.keys, self.values):
            array[self._slots(target)] = array[self._slots(source)]

    def save_page(self, page: int) -> bytes:
        return self.keys[self._slots(page)].tobytes() + self.values[self._slots(page)].tobytes()

    def load_page(self, page: int, data: bytes) -> None:
        k = self.keys[self._slots(page)]
        v = self.values[self._slots(page)]
        if len(data) != k.nbytes + v.nbytes:
            raise BackendError(f"a saved page has {len(data)} bytes, not {k.nbytes + v.nbytes}", where="cache")
        k[...] = np.frombuffer(data[: k.nbytes], k.dtype).reshape(k.shape)
        v[...] = np.frombuffer(data[k.nbytes :], v.dtype).reshape(v.shape)

    def gather(self, group: Group) -> tuple[F32, F32]:
        """The group's keys ``(n_head_kv, length, k_dim)`` and values ``(n_head_kv, length, v_dim)`` in float32."""
        slots = (group.pages[:, None] * self.page_size + np.arange(self.page_size)).reshape(-1)[: group.length]
        keys = self.keys[slots].transpose(1, 0, 2).astype(np.float32)
        values = self.values[slots].transpose(1, 0, 2).astype(np.float32)
        return keys, values


class BoundAttention:
    """An `Attention` with its four projections bound."""

    def __init__(self, op: Attention, q: BoundDense, k: BoundDense, v: BoundDense, out: BoundDense) -> None:
        self.op, self.q, self.k, self.v, self.out = op, q, k, v, out
        self.q_norm = BoundNorm(op.q_norm) if op.q_norm else None
        self.k_norm = BoundNorm(op.k_norm) if op.k_norm else None

    def __call__(self, x: F32, plan: Plan, state: KVState) -> F32:
        op, n = self.op, len(x)
        q = self.q(x).reshape(n, op.n_head, -1)
        k = self.k(x).reshape(n, op.n_head_kv, -1)
        v = self.v(x).reshape(n, op.n_head_kv, -1)
        if self.q_norm:
            q = self.q_norm(q)
        if self.k_norm:
            k = self.k_norm(k)
        if op.rope:
            q, k = rotate(q, plan.positions, op.rope), rotate(k, plan.positions, op.rope)
        state.keys[plan.slots] = k
        state.values[plan.slots] = v
        mixed = np.empty((n, op.n_head * v.shape[-1]), np.float32)
        for group in plan.groups:
            mixed[group.rows] = self._attend(q[group.rows], group, state)
        return self.out(mixed)

    def _attend(self, q: F32, group: Group, state: KVState) -> F32:
        """``(m, n_head, head_dim)`` queries of one sequence to ``(m, n_head * v_dim)``."""
        op, m = self.op, len(q)
        keys, values = state.gather(group)
        shared = op.n_head // op.n_head_kv  # query heads that read the same key head
        q = (q * np.float32(op.scale)).reshape(m, op.n_head_kv, shared, -1).transpose(1, 0, 2, 3)
        result = np.empty((m, op.n_head_kv, shared, values.shape[-1]), np.float32)
        position = np.arange(group.length - m, group.length)
        for start in range(0, m, QUERY_ROWS):
            rows = slice(start, min(start + QUERY_ROWS, m))
            at = position[rows]
            stop = int(at[-1]) + 1
            begin = 0 if op.window is None else max(0, int(at[0]) - op.window + 1)
            seen = np.arange(begin, stop)
            hidden = seen > at[:, None]
            if op.window is not None:
                hidden |= seen <= at[:, None] - op.window
            for head in range(op.n_head_kv):
                scores = q[head, rows].reshape(-1, q.shape[-1]) @ keys[head, begin:stop].T
                if op.softcap is not None:
                    softcap(scores, op.softcap)
                scores = scores.reshape(len(at), shared, -1)
                scores[np.broadcast_to(hidden[:, None], scores.shape)] = -np.inf
                mixed = softmax(scores).reshape(-1, stop - begin) @ values[head, begin:stop]
                result[rows, head] = mixed.reshape(len(at), shared, -1)
        return result.reshape(m, -1)
