"""A cache type that can hold a model's keys and values."""

from __future__ import annotations

import logging
import math

import numpy as np

from sis_core.block import Attention, Network, find

log = logging.getLogger(__name__)
LARGEST_HALF = float(np.finfo(np.float16).max)


def cache_type(network: Network, wanted: str, where: str) -> str:
    """``wanted``, or ``bf16``, with a warning, where ``f16`` cannot hold what the biases alone add to keys or values.

    Some Qwen 2 files have such biases: keys beyond the range of float16 become infinite, and all that follows NaN.
    """
    if wanted != "f16" or (largest := _largest_bias(network)) < LARGEST_HALF / 2:
        return wanted
    log.warning(
        "%s: biases of keys or values reach %.0f, more than float16 holds: the cache is kept in bf16", where, largest
    )
    return "bf16"


def _largest_bias(network: Network) -> float:
    """The largest size that a key or value gets from its bias; rotating adds up two neighbours."""
    sizes = [0.0]
    for op in find(network.blocks, Attention):
        for dense, factor in ((op.k, math.sqrt(2) * (op.rope.magnitude if op.rope else 1)), (op.v, 1.0)):
            if dense and dense.bias is not None and not (dense is op.k and op.k_norm):
                sizes.append(float(np.abs(dense.bias.dequantize()).max()) * factor)
    return max(sizes)
