"""Attention with faults that no field of `Attention` can say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backends.numpy.activations import softcap
from sis_core.backends.numpy.linear import BoundDense, ReferenceLinear
from sis_core.backends.numpy.ops.attention import BoundHeads
from sis_core.backends.numpy.rotation import Rotation
from sis_core.block import Attention, Dense, Norm, Op
from sis_core.step import Plan
from sis_core.testing.faults.change import Fault, every


@frozen(eq=False)
class WholeText(Op):
    """Attention with a fault that no field of `Attention` can say; right only in a step that is a whole text."""

    op: Attention
    rotates_q: bool = True
    rotates_k: bool = True
    causal: bool = True

    def compute(self, hidden: F32, plan: Plan, state: object) -> F32:
        """``(n, n_embd)`` of a text from its beginning to ``(n, n_embd)``."""
        op, n = self.op, len(hidden)
        assert op.k is not None
        assert op.v is not None
        q = self._heads(op.q, op.q_norm, op.n_head, self.rotates_q, hidden, plan)
        k = self._heads(op.k, op.k_norm, op.n_head_kv, self.rotates_k, hidden, plan)
        v = self._heads(op.v, None, op.n_head_kv, False, hidden, plan)
        k, v = (np.repeat(x, op.n_head // op.n_head_kv, axis=1) for x in (k, v))
        if op.q_scale is not None:
            q = q * op.q_scale.factors(plan.positions).astype(np.float32)[:, None, None]
        scores = np.einsum("mhd,nhd->hmn", q, k) * np.float32(op.scale)
        if op.softcap is not None:
            scores = softcap(scores, op.softcap)
        ago = np.arange(n)[:, None] - np.arange(n)
        if op.alibi is not None:
            scores = scores - op.alibi[:, None, None] * ago.astype(np.float32)
        hides = (ago < 0 if self.causal else np.zeros_like(ago, bool)) | (ago >= (op.window or n))
        scores = np.where(hides, np.float32(-np.inf), scores)
        if op.sinks is not None:
            scores = np.concatenate([scores, np.tile(op.sinks.dequantize().reshape(-1, 1, 1), (1, n, 1))], axis=-1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True))[..., :n]
        mixed = np.einsum("hmn,nhd->mhd", weights, v).reshape(n, -1)
        return _linear(op.out, mixed.astype(np.float32))

    def _heads(self, dense: Dense, norm: Norm | None, n: int, rotates: bool, hidden: F32, plan: Plan) -> F32:
        rotation = Rotation(self.op.rope) if rotates and self.op.rope is not None else None
        return BoundHeads(self.op, n, norm, rotation)(_linear(dense, hidden), plan)


def _linear(dense: Dense, x: F32) -> F32:
    return BoundDense.of(dense, ReferenceLinear(dense.weight))(x)


def wrong_attention(words: str, applies: Callable[[Attention], object], **wrong: bool) -> Fault:
    """The fault of an attention that is wrong in a way of `WholeText`, where ``applies`` says that it can be."""
    return Fault(words, every(Attention, lambda op: WholeText(op, **wrong) if applies(op) else op), whole_text=True)
