"""Causal attention over paged keys and values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sis_core.arrays import F32, I32
from sis_core.backends.numpy.activations import softcap
from sis_core.backends.numpy.bound import Binder, Run
from sis_core.backends.numpy.linear import BoundDense
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.backends.numpy.rotation import Rotation
from sis_core.backends.numpy.watching import PageShares
from sis_core.block import KV, Attention, Norm
from sis_core.cache.kv_types import kv_type_of
from sis_core.errors import BackendError
from sis_core.step import Group, Plan

OP = Attention
KEYS = 1024  # keys that are in float32 at once, a multiple of every page size
SCORES = 1 << 22  # scores that are held at once: 16 MiB
UNSEEN = np.float32(-1e30)  # finite, so that a row that sees nothing of a block stays a number; its exp is 0 later


def bind(op: Attention, binder: Binder) -> Run:
    """Attention over what the layer keeps."""
    k, v = (binder.dense(part) if part else None for part in (op.k, op.v))
    return BoundAttention(op, binder.dense(op.q), k, v, binder.dense(op.out))


class KVState:
    """Keys and values ``(n_head_kv, n_slots, width)``, page after page, turned, in the elements of their `KVType`."""

    def __init__(self, kv: KV, kv_type: str, n_pages: int, page_size: int) -> None:
        self.type, self.k_dim, self.v_dim = kv_type_of(kv_type, "cache"), kv.k_dim, kv.v_dim
        self.page_size = page_size
        shape, dtype = (kv.n_head_kv, n_pages * page_size), self.type.dtype
        self.keys = np.zeros((*shape, self.type.width(kv.k_dim)), dtype)
        self.values = np.zeros((*shape, self.type.width(kv.v_dim)), dtype)

    @property
    def page_nbytes(self) -> int:
        return self.page_size * (self.keys[:, 0].nbytes + self.values[:, 0].nbytes)

    def _page(self, page: int) -> tuple[np.ndarray, np.ndarray]:
        slots = slice(page * self.page_size, (page + 1) * self.page_size)
        return self.keys[:, slots], self.values[:, slots]

    def copy_page(self, source: int, target: int) -> None:
        for old, new in zip(self._page(source), self._page(target), strict=True):
            new[...] = old

    def save_page(self, page: int) -> bytes:
        return b"".join(part.tobytes() for part in self._page(page))

    def load_page(self, page: int, data: bytes) -> None:
        k, v = self._page(page)
        if len(data) != k.nbytes + v.nbytes:
            raise BackendError(f"a saved page has {len(data)} bytes, not {k.nbytes + v.nbytes}", where="cache")
        k[...] = np.frombuffer(data[: k.nbytes], k.dtype).reshape(k.shape)
        v[...] = np.frombuffer(data[k.nbytes :], v.dtype).reshape(v.shape)

    def write(self, slots: np.ndarray, k: F32, v: F32) -> None:
        """Store keys and values ``(n, n_head_kv, dim)`` in ``slots`` ``(n,)``."""
        self.keys[:, slots] = self.type.encode(self.type.turn_keys(k.swapaxes(0, 1)))
        self.values[:, slots] = self.type.encode(self.type.turn_values(v.swapaxes(0, 1)))

    def blocks(self, group: Group, first: int) -> Iterator[tuple[int, F32, F32]]:
        """The group's keys and values from token ``first`` on, in blocks of at most `KEYS`.

        Pages that were given back are left out. Each is the block's first token, and float32, turned as they are kept,
        ``(n_head_kv, m, k_dim)`` and ``(n_head_kv, m, v_dim)``: views where the pages lie in a row and the cache is
        float32, copies otherwise.
        """
        for start in range(first // KEYS * KEYS, group.length, KEYS):
            stop = min(start + KEYS, group.length)
            for begin, end in _kept(group.pages[start // self.page_size : -(-stop // self.page_size)]):
                at = start + begin * self.page_size
                pages, n = group.pages[at // self.page_size :][: end - begin], (end - begin) * self.page_size
                slots = self._slots(pages, min(n, stop - at))
                yield (
                    at,
                    self.type.decode(self.keys[:, slots], self.k_dim),
                    self.type.decode(self.values[:, slots], self.v_dim),
                )

    def _slots(self, pages: I32, n: int) -> slice | np.ndarray:
        """The first ``n`` slots of some pages."""
        if int(pages[-1]) - int(pages[0]) == len(pages) - 1 and bool((np.diff(pages) == 1).all()):
            begin = int(pages[0]) * self.page_size
            return slice(begin, begin + n)
        return (pages[:, None] * self.page_size + np.arange(self.page_size)).reshape(-1)[:n]


def _kept(pages: I32) -> list[tuple[int, int]]:
    """Stretches ``[begin, end)`` of pages that were not given back."""
    kept = pages >= 0
    if kept.all():
        return [(0, len(pages))]
    edges: list[int] = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def clamped(x: F32, limit: float | None) -> F32:
    """Values limited both ways."""
    return x if limit is None else x.clip(np.float32(-limit), np.float32(limit))


class BoundHeads:
    """What becomes of a projection before it is a query or a key."""

    def __init__(self, op: Attention, n_head: int, norm: Norm | None, rotation: Rotation | None) -> None:
        self.clamp, self.n_head, self.rotation, self.norm_first = op.clamp, n_head, rotation, op.norm_first
        self.norm = BoundNorm(norm) if norm else None
        self.whole = norm is not None and norm.weight is not None and norm.weight.n_cols == n_head * op.head_dim

    def __call__(self, x: F32, plan: Plan) -> F32:
        """``(n, n_head * head_dim)`` to ``(n, n_head, head_dim)``."""
        x = clamped(x, self.clamp).reshape(len(x), self.n_head, -1)
        if self.norm_first:
            x = self._normed(x)
        if self.rotation:
            x = self.rotation(x, plan)
        return x if self.norm_first else self._normed(x)

    def _normed(self, x: F32) -> F32:
        if self.norm is None:
            return x
        return self.norm(x.reshape(len(x), -1)).reshape(x.shape) if self.whole else self.norm(x)


class BoundAttention:
    """An `Attention` with its four projections bound."""

    def __init__(
        self, op: Attention, q: BoundDense, k: BoundDense | None, v: BoundDense | None, out: BoundDense
    ) -> None:
        if not op.causal and op.window is not None:
            raise BackendError("no backend knows a window over tokens on both sides", where="block")
        self.op, self.q, self.k, self.v, self.out = op, q, k, v, out
        rotation = Rotation.of(op.rope) if op.rope else None
        self.q_heads = BoundHeads(op, op.n_head, op.q_norm, rotation)
        self.k_heads = BoundHeads(op, op.n_head_kv, op.k_norm, rotation)
        self.sinks = op.sinks.dequantize().reshape(op.n_head_kv, 1, -1, 1) if op.sinks else None
        self.slopes = None if op.alibi is None else op.alibi.reshape(op.n_head_kv, 1, -1, 1)

    def __call__(self, x: F32, plan: Plan, state: KVState) -> F32:
        op, n = self.op, len(x)
        q = self.q_heads(self.q(x), plan)
        if op.q_scale:
            q = q * op.q_scale.factors(plan.positions).astype(np.float32)[:, None, None]
        if self.k is not None and self.v is not None:
            v = clamped(self.v(x), op.clamp).reshape(n, op.n_head_kv, -1)
            state.write(plan.slots, self.k_heads(self.k(x), plan), v)
        if len(plan.groups) == 1:  # its rows are all rows, in order
            return self.out(self._attend(q, plan.groups[0], state, plan.watch))
        mixed = np.empty((n, op.n_head * state.v_dim), np.float32)
        for group in plan.groups:
            mixed[group.rows] = self._attend(q[group.rows], group, state)
        return self.out(mixed)

    def _attend(self, q: F32, group: Group, state: KVState, watch: list[F32] | None = None) -> F32:
        """``(m, n_head, head_dim)`` queries of one sequence to ``(m, n_head * v_dim)``; see `Plan.watch`.

        The softmax runs over blocks of keys with a running maximum (Milakov and Gimelshein 2018), so that neither the
        scores nor the keys in float32 grow with the text.
        """
        op, m = self.op, len(q)
        shared = op.n_head // op.n_head_kv  # query heads that read the same key head
        q = state.type.turn_keys(q * np.float32(op.scale)).reshape(m, op.n_head_kv, shared, -1).swapaxes(0, 1)
        position = np.arange(group.length - m, group.length)
        mixed = np.zeros((op.n_head_kv, m, shared, state.v_dim), np.float32)
        total = np.zeros((op.n_head_kv, m, shared, 1), np.float32)
        best = np.full_like(total, UNSEEN)
        first = 0 if op.window is None else max(0, group.length - m - op.window + 1)
        step = max(1, SCORES // (op.n_head * KEYS))
        looks = None
        if watch is not None and op.window is None:
            looks = PageShares((op.n_head_kv, m, shared), len(group.pages), state.page_size)
        for start, keys, values in state.blocks(group, first):
            stop = start + keys.shape[1]
            from_row = max(0, start - int(position[0])) if op.causal else 0  # rows before the block see nothing of it
            to_row = m if op.window is None else min(m, stop + op.window - 1 - int(position[0]))
            for row in range(from_row, to_row, step):
                rows = slice(row, min(row + step, to_row))
                scores = self._scores(q[:, rows], keys, position[rows], start)
                peak = np.maximum(best[:, rows], scores.max(-1, keepdims=True))
                fade = np.exp(best[:, rows] - peak)
                scores -= peak
                np.exp(scores, out=scores)
                if looks:
                    looks.add(rows, start, scores, peak)
                total[:, rows] = total[:, rows] * fade + scores.sum(-1, keepdims=True)
                added = scores.reshape(op.n_head_kv, -1, stop - start) @ values
                mixed[:, rows] = mixed[:, rows] * fade + added.reshape(mixed[:, rows].shape)
                best[:, rows] = peak
        if watch is not None and looks:
            watch.append(looks.result())
        if self.sinks is not None:
            peak = np.maximum(best, self.sinks)
            fade = np.exp(best - peak)
            total = total * fade + np.exp(self.sinks - peak)
            mixed *= fade
        mixed /= total
        mixed = state.type.turn_values(mixed)
        return mixed.swapaxes(0, 1).reshape(m, -1)

    def _scores(self, q: F32, keys: F32, position: np.ndarray, start: int) -> F32:
        """``(n_head_kv, m, shared, n_keys)`` scores, `UNSEEN` where a row may not look."""
        op = self.op
        heads, m, shared, dim = q.shape
        scores: F32 = (q.reshape(heads, m * shared, dim) @ keys.swapaxes(1, 2)).reshape(heads, m, shared, -1)
        if op.softcap is not None:
            softcap(scores, op.softcap)
        stop = start + keys.shape[1]
        if self.slopes is not None:
            scores += self.slopes * (np.arange(start, stop) - position[:, None])[:, None].astype(np.float32)
        whole = (stop - 1 <= position[0] or not op.causal) and (op.window is None or start > position[-1] - op.window)
        if not whole:
            seen = np.arange(start, stop)
            hidden = seen > position[:, None]
            if op.window is not None:
                hidden |= seen <= position[:, None] - op.window
            np.copyto(scores, UNSEEN, where=hidden[:, None])
        return scores
