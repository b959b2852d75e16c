"""MXFP4 as gpt-oss publishes it, in GGUF's order: the same codes and scales at other places.

Published: ``blocks`` (n_expert, n_rows, n_blocks, 16) of bytes, value 2 i in the low half of byte i and 2 i + 1 in the
high half; ``scales`` (n_expert, n_rows, n_blocks) of exponents. GGUF's block: the exponent, then 16 bytes, value j in
the low half of byte j and j + 16 in the high half (ggml's ``block_mxfp4``).
"""

from __future__ import annotations

import numpy as np

from sis_core.arrays import F32, U8
from sis_core.errors import SourceError
from sis_core.quant import QuantFormat, Weight

VALUES, BYTES = 32, 16


class Bytes(QuantFormat):
    """Bytes of a checkpoint that mean something together with others alone."""

    name = "U8"

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        raise NotImplementedError


class MXFP4(QuantFormat):
    """A block of GGUF's type 39, handed on as it is."""

    name, type_id, block_size, type_size = "MXFP4", 39, VALUES, BYTES + 1

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        raise NotImplementedError


def mxfp4(name: str, blocks: Weight, scales: Weight) -> Weight:
    """A stack ``(n_expert, n_rows, n_cols)`` of the two tensors; SourceError where they do not fit together."""
    if len(blocks.shape) != 4 or blocks.shape[3] != BYTES or scales.shape != blocks.shape[:3]:
        raise SourceError(
            f"{name[:80]!r} has blocks {blocks.shape} and scales {scales.shape}, which do not fit together",
            where="safetensors",
            fix="download this model again",
        )
    n_expert, n_rows, n_blocks, _ = blocks.shape

    def read() -> U8:
        codes = blocks.raw.reshape(-1, BYTES)
        values = np.stack([codes & 15, codes >> 4], axis=-1).reshape(-1, VALUES)
        return np.hstack([scales.raw.reshape(-1, 1), values[:, :BYTES] | values[:, BYTES:] << 4]).reshape(-1)

    return Weight.of(name, MXFP4(), (n_expert, n_rows, n_blocks * VALUES), read)
