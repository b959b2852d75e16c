"""Eviction: which pages of a long prompt stay in the cache after it was read.

The cache keeps whole pages, of all layers that look at the whole text alike, so an eviction rates pages: by what the
last tokens of the prompt looked at. What stays keeps its places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sis_core.arrays import F32


class Eviction(ABC):
    """Options of an eviction: an attrs class whose fields are options, as those of a `Sampler`.

    The first field is the main one: ``--context "snapkv:2048"`` sets it.

    Attributes:
        name: unique among evictions: what ``--context`` calls it.
        keep: tokens of a prompt that stay, in whole pages: a shorter one stays as it is.
        window: of these the last, which always stay, and whose attention says what else does; at most a page (32).
    """

    name: ClassVar[str]
    keep: int
    window: int

    @abstractmethod
    def rate(self, attention: Sequence[F32]) -> F32:
        """A number for each page, float32 or float64 ``(n_pages,)``: those with the highest stay.

        Args:
            attention: for each layer that looks at the whole text, float32 ``(n_head, window, n_pages)``: the share of
                each row's attention that the keys of each page have. A row's shares sum up to 1.
        """
