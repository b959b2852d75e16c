"""Keys and values in the kernels' layout, page by page."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from sis_core.arrays import U8
from sis_core.backends.native import abi
from sis_core.backends.native.library import address
from sis_core.backends.native.memory import HUGE, Arena
from sis_core.block import KV
from sis_core.cache.kv_types import kv_type_of
from sis_core.cache.paged import Layout, PagedCache
from sis_core.cache.raw_pages import RawPages
from sis_core.errors import BackendError

SKEW = 4096 + 64  # bytes, where that is little beside what it keeps apart


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

    def __init__(self, kv: KV, kv_type: str, n_pages: int, page_size: int, pages: U8 | None = None) -> None:
        """``pages``: where they lie, each in one piece; None for memory of their own."""
        if page_size not in (16, 32, 64, 128):  # attention reads tiles of 16 keys in chunks of 128
            raise BackendError(f"pages of {page_size} tokens do not fit the kernels", where="cache")
        self.kv_type, self.page_size = kv_type, page_size
        super().__init__(_zeros(n_pages, 1, page_nbytes(kv, kv_type, page_size))[:, 0] if pages is None else pages)
        self.record = abi.KV(address(self.pages), self.pages.strides[0])  # where native code finds the pages


def native_states(
    kvs: Sequence[KV | None], kv_type: str, n_pages: Sequence[int], page_size: int
) -> list[NativeKV | None]:
    """The states of layers. Those whose pages are alike share memory, in which the same page of all lies together.

    So a short text takes few huge pages: memory that is used for the first time costs a first step more than its keys.
    """
    shapes = [(n, page_nbytes(kv, kv_type, page_size)) if kv else None for kv, n in zip(kvs, n_pages, strict=True)]
    memory = {shape: _zeros(shape[0], shapes.count(shape), shape[1]) for shape in set(shapes) if shape}
    states: list[NativeKV | None] = []
    for at, (kv, shape) in enumerate(zip(kvs, shapes, strict=True)):
        if kv and shape:
            states.append(NativeKV(kv, kv_type, shape[0], page_size, memory[shape][:, shapes[:at].count(shape)]))
        else:
            states.append(None)
    return states


def _zeros(n_pages: int, n_layers: int, n_bytes: int) -> U8:
    """``(n_pages, n_layers, n_bytes)``, taken from the system when a page is first written.

    Pages of a layer do not lie a multiple of a processor cache's size apart: they would drive each other out of it.
    """
    used = n_layers * n_bytes
    apart = used + SKEW if n_layers > 1 and used > 64 * SKEW else used
    size = n_pages * apart
    flat = Arena(size).array if size >= HUGE else np.zeros(size, np.uint8)  # a small one would not fill a huge page
    return flat[:size].reshape(n_pages, apart)[:, :used].reshape(n_pages, n_layers, n_bytes)


class NativeCache(PagedCache):
    """A paged cache all of whose layers are native."""

    def __init__(
        self, layout: Layout, states: Sequence[NativeKV | None], max_tokens: int, kv_type: str, owner: object
    ) -> None:
        super().__init__(layout, states, max_tokens, kv_type, owner)
        records = (state.record if state else abi.KV() for state in self.read)
        self._records = (abi.KV * max(len(states), 1))(*records)
        self.address = ctypes.addressof(self._records)
