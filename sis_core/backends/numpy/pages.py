"""Storage for states that core does not know: bytes, which the block's own ops read and write."""

from __future__ import annotations

import math

import numpy as np

from sis_core.block import State
from sis_core.cache.kv_types import kv_type_of
from sis_core.cache.raw_pages import RawPages


class StatePages(RawPages):
    """Pages ``(n_pages, page_nbytes)``, uint8; an op takes views of them in its own type.

    A page holds ``page_size`` tokens, or what a state with window 0 keeps of one sequence.
    """

    def __init__(self, state: State, kv_type: str, n_pages: int, page_size: int) -> None:
        if state.window == 0:
            n_each = state.sequence_nbytes
        else:
            n_each = math.ceil(page_size * state.token_nbytes(kv_type_of(kv_type, "cache").value_bytes))
        super().__init__(np.zeros((n_pages, n_each), np.uint8))
