"""The ways in which the kit feeds one text to a backend: the numbers must always be the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import frozen

from sis_core.arrays import F32
from sis_core.backend import Cache, Forward
from sis_core.step import Batch, Run

CACHE = 320


@frozen
class Way:
    """One way to run a text.

    Attributes:
        name: for messages.
        run: a forward, a type of cache and ids to float32 ``(n, n_vocab)`` logits or ``(n, n_embd)`` hidden states.
        hint: what is likely when this way is the first that is wrong.
    """

    name: str
    run: Callable[[Forward, str, list[int]], F32]
    hint: str


def new_cache(forward: Forward, kv_type: str) -> Cache:
    """A cache that is large enough for every way."""
    return forward.new_cache(kv_type, CACHE)


def _at_once(forward: Forward, kv_type: str, ids: list[int]) -> F32:
    return forward.step(Batch.of(ids, outputs=range(len(ids))), new_cache(forward, kv_type)).values


def _by_one(forward: Forward, kv_type: str, ids: list[int]) -> F32:
    cache = new_cache(forward, kv_type)
    return np.concatenate([forward.step(Batch.of([t], position=i), cache).values for i, t in enumerate(ids)])


def _in_chunks(forward: Forward, kv_type: str, ids: list[int]) -> F32:
    cache, parts = new_cache(forward, kv_type), []
    for start, stop in ((0, 21), (21, 22), (22, 34), (34, 44)):
        batch = Batch.of(ids[start:stop], position=start, outputs=range(stop - start))
        parts.append(forward.step(batch, cache).values)
    return np.concatenate(parts)


def _among_others(forward: Forward, kv_type: str, ids: list[int]) -> F32:
    cache, parts = new_cache(forward, kv_type), []
    forward.step(Batch.of(ids[::-1][:20], sequence=9, outputs=[]), cache)
    for i, token in enumerate(ids):
        batch = Batch([ids[-i], token, 3], (Run(9, 20 + i, 1), Run(4, i, 1), Run(2, i, 1)), [1])
        parts.append(forward.step(batch, cache).values)
    return np.concatenate(parts)


def _hidden(forward: Forward, kv_type: str, ids: list[int]) -> F32:
    batch = Batch(ids, (Run(0, 0, len(ids)),), [5, 43, 0], want="hidden")
    return forward.step(batch, new_cache(forward, kv_type)).values


LOGITS = (
    Way("all at once", _at_once, ""),
    Way("token by token", _by_one,
        "all at once it is right: positions must be those of the batch, and keys those of the steps before too"),
    Way("in chunks", _in_chunks,
        "all at once and token by token it is right: a step of several tokens after others must see those, and of its "
        "own only those before"),
    Way("among others", _among_others,
        "alone it is right: rows of another sequence in the same step are mixed with this one's"),
)  # fmt: skip
HIDDEN = Way(
    "hidden states of three rows",
    _hidden,
    "logits are right: hidden states are wanted after the output norm, in the order of batch.outputs",
)
