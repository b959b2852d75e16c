"""How a row's attention is shared among the pages that its keys lie in."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32


class PageShares:
    """Sums of weights by page, gathered block after block of keys, each beside the maximum that it is relative to."""

    def __init__(self, shape: tuple[int, int, int], n_pages: int, page_size: int) -> None:
        """``shape``: key heads, rows, and query heads that share a key head."""
        self._page_size = page_size
        self._sums = np.zeros((*shape, n_pages), np.float32)
        self._peaks = np.full_like(self._sums, -np.inf)

    def add(self, rows: slice, start: int, weights: F32, peak: F32) -> None:
        """Weights ``(n_head_kv, m, shared, n)`` of the keys from ``start`` on, where a page begins, relative to a
        ``peak`` for each row."""
        edges = np.arange(0, weights.shape[-1], self._page_size)
        pages = slice(start // self._page_size, start // self._page_size + len(edges))
        self._sums[:, rows, :, pages] = np.add.reduceat(weights, edges, axis=-1)
        self._peaks[:, rows, :, pages] = peak

    def result(self) -> F32:
        """``(n_head, m, n_pages)``: each row's shares, which sum up to 1."""
        shares: F32 = self._sums * np.exp(self._peaks - self._peaks.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        heads, m, shared, n_pages = shares.shape
        return shares.swapaxes(1, 2).reshape(heads * shared, m, n_pages)
