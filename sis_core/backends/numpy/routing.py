"""Which experts each row uses, and how much of each."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.arrays import F32, I32
from sis_core.experts import Experts

NEAR = 0.02  # twice the noise that SparseMixer was trained with
TINY = np.float32(1e-20)  # the sum of weights that are divided by it may be 0 in float32


def softmax(x: F32) -> F32:
    """Over the last axis."""
    y: F32 = np.exp(x - x.max(-1, keepdims=True))
    y /= y.sum(-1, keepdims=True)
    return y


def sigmoid(x: F32) -> F32:
    """Of each value."""
    with np.errstate(over="ignore"):
        return np.reciprocal(np.exp(-x) + np.float32(1))


GATINGS = {"softmax": softmax, "sigmoid": sigmoid}
"""Those that make scores of logits; with others, logits are scores."""


@frozen(eq=False)
class Routing:
    """The choice of an `Experts` record."""

    op: Experts
    selection_bias: F32 | None

    @classmethod
    def of(cls, op: Experts) -> Routing:
        return cls(op, None if op.selection_bias is None else op.selection_bias.dequantize().reshape(-1))

    def __call__(self, logits: F32) -> tuple[I32, F32]:
        """Experts and their weights ``(n, n_used)``, the best first, for logits ``(n, n_expert)``."""
        op = self.op
        scores = GATINGS[op.gating](logits) if op.gating in GATINGS else logits
        selected = scores if self.selection_bias is None else scores + self.selection_bias
        if op.n_group > 1:
            selected = self._within_groups(selected)
        chosen = best(selected, op.n_used)
        weights: F32 = np.take_along_axis(scores, chosen, 1)
        if op.gating == "softmax_weight":
            weights = softmax(weights)
        if op.gating == "sparse_mixer":
            weights = sparse_mixer(logits, chosen)
        if op.renormalise:
            weights = weights / (weights.sum(-1, keepdims=True) + TINY)
        return chosen, weights * np.float32(op.scale)

    def _within_groups(self, scores: F32) -> F32:
        """Scores with those outside the best groups at minus infinity."""
        grouped = scores.reshape(len(scores), self.op.n_group, -1)
        used = best(np.sort(grouped, axis=-1)[..., -2:].sum(-1), self.op.n_group_used)
        kept = np.zeros(grouped.shape[:2], bool)
        np.put_along_axis(kept, used, True, 1)
        masked: F32 = np.where(kept[..., None], grouped, np.float32(-np.inf)).reshape(scores.shape)
        return masked


def sparse_mixer(logits: F32, chosen: I32) -> F32:
    """The weight of each chosen expert ``(n, n_used)``, among those that are left and hardly lower than it."""
    left, weights = logits.copy(), np.empty(chosen.shape, np.float32)
    for slot, expert in enumerate(chosen.T):
        most = np.take_along_axis(left, expert[:, None], 1)
        near = most - left <= np.float32(NEAR) * np.maximum(np.abs(left), most)
        weights[:, slot] = 1 / np.where(near, np.exp(left - most), np.float32(0)).sum(-1)
        np.put_along_axis(left, expert[:, None], np.float32(-np.inf), 1)
    return weights


def best(scores: F32, n: int) -> I32:
    """Where the ``n`` highest of each row are, from the highest on; of equal ones the first."""
    return np.argsort(-scores, axis=-1, kind="stable")[:, :n].astype(np.int32)
