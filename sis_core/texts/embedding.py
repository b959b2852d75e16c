"""One vector for a text: its hidden states, pooled as the model's file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, cast, get_args

import numpy as np

from sis_core.arrays import F32, F64
from sis_core.errors import ModelError
from sis_core.loading.checks import check_option
from sis_core.loading.model import Model
from sis_core.texts.finite import finite

Pooling = Literal["mean", "first", "last"]
_KINDS: dict[int, Pooling] = {1: "mean", 2: "first", 3: "last"}
"""GGUF's ``{arch}.pooling_type``, which llama.cpp's ``llama_pooling_type`` numbers; 0 is none and 4 a ranking."""


def pooling_of(model: Model, asked: str | None = None) -> Pooling:
    """How hidden states become one vector: as asked, as the file says, or their mean where it says nothing.

    Raises:
        ModelError: the file says what is no vector.
        SisError: what is asked for is no pooling.
    """
    if asked is not None:
        check_option("pooling", asked, choices=get_args(Pooling))
        return cast("Pooling", asked)
    key = f"{model.config.architecture}.pooling_type"
    kind = model.metadata.get(key, 0)
    if kind == 0:
        return "mean"
    if kind not in _KINDS:
        raise ModelError(f"{key} is {kind!r:.40}, which makes no vectors of texts", where=str(model.path))
    return _KINDS[kind]


def in_groups(prompts: Iterable[list[int]], n: int) -> Iterator[list[list[int]]]:
    """Prompts in order, as many at a time as have ``n`` tokens together, and at least one: a step has room for many
    short ones, and a cache need not hold all of a long list."""
    group: list[list[int]] = []
    for prompt in prompts:
        if group and sum(map(len, group)) + len(prompt) > n:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group


def pooled(rows: F32, pooling: Pooling) -> F32:
    """Hidden states ``(n, n_embd)`` as one vector ``(n_embd,)`` of length 1; ModelError where they are not finite."""
    rows = finite(rows, "a hidden state")
    row = rows.mean(0, dtype=np.float64) if pooling == "mean" else rows[0 if pooling == "first" else -1]
    vector: F64 = row.astype(np.float64)
    length = float(np.linalg.norm(vector))
    unit: F32 = (vector / (length or 1)).astype(np.float32)
    return unit
