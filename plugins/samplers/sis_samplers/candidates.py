"""What truncating samplers share: who is still allowed, how likely, the largest few, and masking the rest."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sis_core.arrays import F32, F64

Ids: TypeAlias = NDArray[np.intp]
BLOCK = 64
FIRST = 128  # how many candidates `nucleus` looks at first


def allowed(logits: F32) -> Ids:
    """Ids above minus infinity, in order."""
    return np.flatnonzero(logits > -np.inf)


def keep(logits: F32, ids: Ids) -> None:
    """Mask everything but ``ids``, in place."""
    saved = logits[ids]
    logits.fill(-np.inf)
    logits[ids] = saved


def keep_at_least(logits: F32, threshold: float) -> None:
    """Mask what lies below ``threshold``, in place."""
    np.copyto(logits, -np.inf, where=logits < threshold)


def relative_weights(logits: F32) -> tuple[F32, float]:
    """exp(l - max l) of finite logits, and its sum; their quotient is softmax.

    float32, because a float64 pass over a vocabulary costs several times more; the sum is float64.
    """
    weights = np.exp(logits - logits.max())
    return weights, float(weights.sum(dtype=np.float64))


def descending(values: F32 | F64) -> Ids:
    """Indices from the largest value to the smallest; equal values in the order of their indices."""
    return np.argsort(-values, kind="stable")


def largest(values: F32, k: int) -> Ids:
    """Indices of the ``k`` largest values, in no order; of equal values at the edge, the first ones.

    The k-th largest of the maxima of blocks is a lower bound of the k-th largest value, so that only a few values
    have to be partitioned.
    """
    n = len(values)
    if k >= n:
        return np.arange(n)
    if n >= 8 * BLOCK * k:
        whole = n // BLOCK * BLOCK
        maxima = values[:whole].reshape(-1, BLOCK).max(1)
        bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
        few = np.flatnonzero(values >= bound)
        return few[_largest(values[few], k)] if len(few) > k else few
    return _largest(values, k)


def nucleus(scores: F32, weights: F32, wanted: float) -> Ids:
    """Indices of the fewest highest scores whose weights sum to ``wanted``; at least one, best first, ties by index.

    Looks at a few of the highest first, and at more until they suffice.
    """
    k = FIRST
    while True:
        best = np.sort(largest(scores, k))  # in order of indices, so that the stable sort breaks ties by them
        best = best[descending(scores[best])]
        ends: F64 = np.cumsum(weights[best], dtype=np.float64)
        if ends[-1] >= wanted or len(best) == len(scores):
            return best[: int(np.searchsorted(ends, wanted)) + 1]
        k *= 8


def _largest(values: F32, k: int) -> Ids:
    edge = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > edge)
    return np.concatenate([above, np.flatnonzero(values == edge)[: k - len(above)]])
