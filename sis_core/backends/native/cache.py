"""Keys and values in the kernels' layout, page by page."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from sis_core.backends.native import abi
from sis_core.backends.native.library import address
from sis_core.backends.native.memory import HUGE, Arena
from sis_core.block import KV
from sis_core.cache.kv_types import kv_type_of
from sis_core.cache.paged import Layout, PagedCache
from sis_core.cache.raw_pages import RawPages
from sis_core.errors import BackendError


def page_nbytes(kv: KV, kv_type: str, page_size: int) -> int:
    """Bytes of a page: keys as they are, values padded to whole vectors; as `sis_kv_layout` in `native/kernels.h`."""
    kv_type_of(kv_type, "cache")
    v_pad = -(-kv.v_dim // abi.TILE) * abi.TILE
    scales = [-(-dim // abi.BLOCK) * 2 for dim in (kv.k_dim, v_pad)]
    match kv_type:
        case "q4_0":
            token = -(-kv.k_dim // 2) + -(-v_pad // abi.BLOCK) * (abi.BLOCK // 2) + sum(scales)
        case "q8_0":
            token = kv.k_dim + v_pad + sum(scales)
        case "bf16":
            token = -(-kv.k_dim // 2) * 4 + v_pad * 2
        case _:
            token = (kv.k_dim + v_pad) * (4 if kv_type == "f32" else 2)
    return page_size * kv.n_head_kv * token


class NativeKV(RawPages):
    """One layer's pages, ``(n_pages, page_nbytes)``: zeros, so that what was never written is at least finite."""

    def __init__(self, kv: KV, kv_type: str, n_pages: int, page_size: int) -> None:
        if page_size not in (16, 32, 64, 128):  # attention reads tiles of 16 keys in chunks of 128
            raise BackendError(f"pages of {page_size} tokens do not fit the kernels", where="cache")
        self.kv_type, self.page_size = kv_type, page_size
        n_each = page_nbytes(kv, kv_type, page_size)
        # Either way memory is taken when a page is first written; a small cache would not fill one huge page.
        n_bytes = n_pages * n_each
        flat = Arena(n_bytes).array if n_bytes >= HUGE else np.zeros(n_bytes, np.uint8)
        super().__init__(flat.reshape(n_pages, n_each))
        self.record = abi.KV(address(self.pages), self.page_nbytes)  # where native code finds the pages


class NativeCache(PagedCache):
    """A paged cache all of whose layers are native."""

    def __init__(
        self, layout: Layout, states: Sequence[NativeKV | None], max_tokens: int, kv_type: str, owner: object
    ) -> None:
        super().__init__(layout, states, max_tokens, kv_type, owner)
        records = (state.record if state else abi.KV() for state in self.read)
        self._records = (abi.KV * max(len(states), 1))(*records)
        self.address = ctypes.addressof(self._records)
