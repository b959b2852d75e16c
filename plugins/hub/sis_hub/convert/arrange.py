"""Tensors cut, joined and put in order, as converters do. Bytes are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sis_core.arrays import I32, U8
from sis_core.errors import SourceError
from sis_core.quant import Weight


def _made(name: str, like: Weight, shape: tuple[int, ...], rows: Callable[[], U8]) -> Weight:
    """A weight whose rows, in the order of the file, are what ``rows`` gives."""
    return Weight.of(name, like.format, shape, lambda: np.ascontiguousarray(rows()).reshape(-1))


def _by_row(weight: Weight) -> U8:
    """Bytes ``(n, …)`` of each of the first dimension's members."""
    return weight.raw.reshape(weight.shape[0], -1)


def with_rows(weight: Weight, order: I32, name: str | None = None) -> Weight:
    """Rows, or values of a vector, ``order`` of a weight; SourceError where there are others than those."""
    if weight.shape[0] <= order.max(initial=0):
        raise SourceError(
            f"tensor {weight.name[:80]!r} has {weight.shape[0]} rows, and {len(order)} belong together",
            where="safetensors",
            fix="download this model again",
        )
    return _made(name or weight.name, weight, (len(order), *weight.shape[1:]), lambda: _by_row(weight)[order])


def cut(weight: Weight, parts: Mapping[str, int]) -> dict[str, Weight]:
    """Parts by name, one after the other, of so many rows each."""
    found, at = {}, 0
    for name, n in parts.items():
        found[name] = with_rows(weight, np.arange(at, at + n, dtype=np.int32), name)
        at += n
    return found


def halves(weight: Weight, first: str, second: str) -> dict[str, Weight]:
    """The first and the second half of a matrix's rows, or of the rows of every matrix of a stack."""
    *stack, n_rows, n_cols = weight.shape
    if n_rows % 2:
        raise SourceError(f"tensor {weight.name[:80]!r} has an odd number of rows", where="safetensors")

    def half(i: int) -> Callable[[], U8]:
        return lambda: weight.raw.reshape(*stack, 2, -1)[..., i, :]

    return {name: _made(name, weight, (*stack, n_rows // 2, n_cols), half(i)) for i, name in enumerate((first, second))}


def every_second(name: str, weight: Weight, first: int) -> Weight:
    """Every second row of each matrix of a stack, or every second value of its vectors."""
    n = weight.shape[1] // 2
    item = weight.nbytes // weight.shape[0] // weight.shape[1]
    shape = (weight.shape[0], n, *weight.shape[2:])
    return _made(name, weight, shape, lambda: weight.raw.reshape(weight.shape[0], n, 2, item)[:, :, first])


def transposed_stack(weight: Weight) -> Weight:
    """A stack of matrices ``(n_expert, n_in, n_out)`` of a plain format as ``(n_expert, n_out, n_in)``."""
    n_expert, n_in, n_out = weight.shape
    item = weight.format.row_bytes(1)
    return _made(
        weight.name, weight, (n_expert, n_out, n_in),
        lambda: weight.raw.reshape(n_expert, n_in, n_out, item).swapaxes(1, 2),
    )  # fmt: skip


def joined(name: str, members: Sequence[Weight]) -> Weight:
    """Vectors of one length as the rows of a matrix."""
    shape = (len(members), *members[0].shape)
    return _made(name, members[0], shape, lambda: np.stack([member.raw.reshape(-1) for member in members]))
