"""The eviction that comes with the core."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.cache.pages import PAGE_SIZE
from sis_core.eviction import Eviction
from sis_core.sampler import integer_option


@frozen
class SnapKV(Eviction):
    """Li et al. 2024 (arXiv 2404.14469): what the last tokens of a prompt look at is what the answer will look at.

    Whole pages, the same for all heads and layers, take the place of the paper's keys, a choice for each head, and of
    its pooling over neighbours.
    """

    name = "snapkv"

    keep: int = integer_option(2048, low=2 * PAGE_SIZE, help="tokens of a prompt that stay")
    window: int = integer_option(PAGE_SIZE, low=1, high=PAGE_SIZE, help="last tokens whose attention decides")

    def rate(self, attention: Sequence[F32]) -> F32:
        scores: F32 = np.sum([layer.mean((0, 1)) for layer in attention], axis=0, dtype=np.float32)
        return scores
