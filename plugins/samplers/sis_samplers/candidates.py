"""What truncating samplers share: who is still allowed, how likely, and the largest few.

All of it is made for vocabularies of 150,000 tokens, where sorting everything would cost more than many a model's step.
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, F64, Ids
from sis_core.sampler import highest

BLOCKS = 64
FIRST = 128  # how many candidates `nucleus` looks at first
SORTED = 2048  # how few are sorted
BUCKETS = 4096
LOWEST = float(np.finfo(np.float32).min)


def allowed(logits: F32) -> tuple[Ids | None, F32]:
    """Ids above minus infinity in order, or None for all of them, and their logits."""
    mask = logits > -np.inf
    if np.count_nonzero(mask) == len(mask):
        return None, logits
    ids = mask.nonzero()[0]
    return ids, logits[ids]


def chosen(ids: Ids | None, indices: Ids) -> Ids:
    """The ids at ``indices`` of what `allowed` gave."""
    return indices if ids is None else ids[indices]


def at_least(logits: F32, threshold: float) -> Ids:
    """Indices of what does not lie below ``threshold``."""
    return (logits >= max(threshold, LOWEST)).nonzero()[0]  # numpy would warn of one that float32 cannot hold


def likeliest(logits: F32) -> Ids:
    """The index of the highest logit, of equal ones the first, as an array."""
    return np.array([logits.argmax()])


def relative_weights(logits: F32) -> tuple[F32, float]:
    """exp(l - max l) of finite logits, and its sum; their quotient is softmax.

    float32, because a float64 pass over a vocabulary costs several times more; the sum is float64.
    """
    weights = logits - np.float32(highest(logits))
    np.exp(weights, out=weights)
    return weights, float(np.add.reduce(weights, dtype=np.float64))


def descending(values: F32) -> Ids:
    """Indices from the largest value to the smallest; equal values in the order of their indices."""
    return (-values).argsort(kind="stable")


def largest(values: F32, k: int) -> Ids:
    """Indices of the ``k`` largest values in ascending order; of equal values at the edge, the first ones.

    The k-th largest of the maxima of groups is a lower bound of the k-th largest value, so that only a few values
    have to be partitioned.
    """
    n = len(values)
    if k >= n:
        return np.arange(n)
    if n <= SORTED:
        return np.sort(descending(values)[:k])
    n_groups = n // BLOCKS
    if n_groups >= 4 * k:
        maxima = values[: BLOCKS * n_groups].reshape(BLOCKS, n_groups).max(0)
        few = at_least(values, np.partition(maxima, n_groups - k)[n_groups - k])
        if len(few) < n:
            return few[largest(values[few], k)]
    edge = float(np.partition(values, n - k)[n - k])
    found = at_least(values, edge)
    if len(found) == k:
        return found
    stay = values[found] > edge
    stay[(~stay).nonzero()[0][: k - np.count_nonzero(stay)]] = True
    return found[stay]


def nucleus(scores: F32, weights: F32, wanted: float) -> Ids:
    """Indices in ascending order of the fewest highest scores whose weights sum to ``wanted``; at least one.

    Of equal scores the first go first. Looks at a few of the highest. Where they do not suffice, it sums weights in
    buckets of like scores, and goes on within the bucket where the sum is reached.
    """
    return np.sort(_nucleus(scores, weights, wanted))


def _nucleus(scores: F32, weights: F32, wanted: float) -> Ids:
    if len(scores) <= FIRST:
        return _sorted_nucleus(None, scores, weights, wanted)[0]
    few = largest(scores, FIRST)
    kept, enough = _sorted_nucleus(few, scores[few], weights[few], wanted)
    if enough:
        return kept
    parts: list[Ids] = []
    rest: Ids | None = None  # the indices that scores and weights belong to; None for all
    before = 0.0
    while len(scores) > SORTED:
        depth = scores.max() - scores
        span = float(depth.max())
        if not 1e-30 < span < np.inf:
            break  # all alike
        depth *= np.float32((BUCKETS - 1) / span)
        bucket = depth.astype(np.intp)
        ends = np.cumsum(np.bincount(bucket, weights)) + before
        here = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)
        parts.append(chosen(rest, np.flatnonzero(bucket < here)))
        inside = np.flatnonzero(bucket == here)
        rest, scores, weights = chosen(rest, inside), scores[inside], weights[inside]
        before = float(ends[here - 1]) if here else before
    kept, _ = _sorted_nucleus(rest, scores, weights, wanted - before)
    return np.concatenate([*parts, kept])


def _sorted_nucleus(ids: Ids | None, scores: F32, weights: F32, wanted: float) -> tuple[Ids, bool]:
    """As `nucleus`, best first, for few; and whether they suffice."""
    order = descending(scores)
    ends: F64 = weights[order].cumsum(dtype=np.float64)
    return chosen(ids, order[: int(ends.searchsorted(wanted)) + 1]), bool(ends[-1] >= wanted)
