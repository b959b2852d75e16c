"""Pages whose bytes nobody but their backend reads."""

from __future__ import annotations

import numpy as np

from sis_core.arrays import U8
from sis_core.errors import BackendError


class RawPages:
    """Pages ``(n_pages, page_nbytes)`` of bytes, copied, saved and loaded whole: most of a `LayerState`."""

    def __init__(self, pages: U8) -> None:
        self.pages = pages

    @property
    def page_nbytes(self) -> int:
        return int(self.pages.shape[1])

    def copy_page(self, source: int, target: int) -> None:
        self.pages[target] = self.pages[source]

    def save_page(self, page: int) -> bytes:
        return bytes(self.pages[page])

    def load_page(self, page: int, data: bytes) -> None:
        if len(data) != self.page_nbytes:
            raise BackendError(f"a saved page has {len(data)} bytes, not {self.page_nbytes}", where="cache")
        self.pages[page] = np.frombuffer(data, np.uint8)
