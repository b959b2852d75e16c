"""Storage for states that core does not know: bytes, which the block's own ops read and write."""

from __future__ import annotations

import math

import numpy as np

from sis_core.arrays import U8
from sis_core.block import State
from sis_core.cache.kv_types import kv_type_of
from sis_core.errors import BackendError


class StatePages:
    """Pages ``(n_pages, page_nbytes)``, uint8; an op takes views of them in its own type.

    A page holds ``page_size`` tokens, or what a state with window 0 keeps of one sequence.
    """

    def __init__(self, state: State, kv_type: str, n_pages: int, page_size: int) -> None:
        if state.window == 0:
            self.page_nbytes = state.sequence_nbytes
        else:
            self.page_nbytes = math.ceil(page_size * state.token_nbytes(kv_type_of(kv_type, "cache").value_bytes))
        self.pages: U8 = np.zeros((n_pages, self.page_nbytes), np.uint8)

    def copy_page(self, source: int, target: int) -> None:
        self.pages[target] = self.pages[source]

    def save_page(self, page: int) -> bytes:
        return bytes(self.pages[page])

    def load_page(self, page: int, data: bytes) -> None:
        if len(data) != self.page_nbytes:
            raise BackendError(f"a saved page has {len(data)} bytes, not {self.page_nbytes}", where="cache")
        self.pages[page] = np.frombuffer(data, np.uint8)
