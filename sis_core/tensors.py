"""Tensors by role. Shapes are checked as they are taken; what nobody takes can be refused.

Roles are GGUF's names (``blk.0.attn_q.weight``). A file that spells its tensors as Hugging Face or GPT-NeoX do is read
through the tensor-name map of the ``gguf`` package.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache

import numpy as np
from attrs import evolve

from sis_core.arrays import I32, U8
from sis_core.block import Dense, Norm, NormKind
from sis_core.errors import ModelError
from sis_core.experts import Stack
from sis_core.quant import PLAIN, Weight

log = logging.getLogger(__name__)

DERIVED = (
    "rotary_emb.inv_freq",
    "attn.masked_bias",
    "attn.bias",
    "attention.bias",
    "attention.masked_bias",
    "attn_rot_embd",
)
TOWERS = ("v.", "a.", "mm.")
"""How names begin of tensors that see, that hear, and that tell the language model of it."""


class Tensors:
    """The weights of a file under their GGUF names.

    Args:
        weights: by the name that the file uses.
        where: the file, for messages.
        degrade: let a missing tensor be a placeholder (zeros, or ones for a norm) with a warning.
    """

    def __init__(self, weights: Mapping[str, Weight], where: str = "", *, degrade: bool = False) -> None:
        self.where, self.degrade = where, degrade
        self.degraded = 0
        self._weights = dict(weights)
        self._taken: set[str] = set()
        self._layers = {parts[1] for name in weights if (parts := name.split("."))[0] == "blk" and len(parts) > 2}

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def get(self, name: str) -> Weight | None:
        """The tensor as it is, without taking it; None when the file has none of that name."""
        return self._weights.get(name)

    def has_any(self, *names: str) -> bool:
        """Whether the file has any of these: a part of which one tensor is missing is missed by that name."""
        return any(name in self._weights for name in names)

    def has_layer(self, i: int) -> bool:
        """Whether the file has any tensor of layer ``i``."""
        return str(i) in self._layers

    def matrix(self, name: str, n_out: int, n_in: int) -> Weight:
        """The weight ``(n_out, n_in)``; ModelError when it is missing or has another shape."""
        return self._take(name, (n_out, n_in), fill=0.0)

    def vector(self, name: str, n: int, *, fill: float = 0.0) -> Weight:
        """The vector ``(n,)``, which must not be quantised."""
        return self._plain(self._take(name, (n,), fill=fill), "a vector", "vectors")

    def _plain(self, weight: Weight, what: str, which: str) -> Weight:
        if weight.format.name not in PLAIN:
            raise ModelError(
                f"tensor {weight.name} is {what} in the block format {weight.format.name}; {which} must be F32, F16 or "
                "BF16",
                where=self.where,
                fix="quantise the model again with a tool that keeps norms and biases",
            )
        return weight

    def maybe_vector(self, name: str, n: int) -> Weight | None:
        """The vector ``(n,)``, or None when the file has no such tensor."""
        return self.vector(name, n) if name in self else None

    def maybe_matrix(self, name: str, n_out: int, n_in: int) -> Weight | None:
        """The weight ``(n_out, n_in)``, or None when the file has no such tensor."""
        return self.matrix(name, n_out, n_in) if name in self else None

    def dense(self, stem: str, n_out: int, n_in: int, *, bias: bool | None = None) -> Dense:
        """``stem.weight`` with ``stem.bias``: required (True), refused as unread (False), or used if present (None)."""
        weight = self.matrix(f"{stem}.weight", n_out, n_in)
        wanted = bias or (bias is None and f"{stem}.bias" in self)
        return Dense(weight, self.vector(f"{stem}.bias", n_out) if wanted else None)

    def tensor(self, name: str, shape: tuple[int, ...], *, fill: float = 0.0) -> Weight:
        """A tensor of any number of dimensions, in numpy's order, for an op of the family's own; errors as `matrix`."""
        return self._take(name, shape, fill)

    def stack(self, stem: str, n_expert: int, n_out: int, n_in: int, *, bias: bool = False) -> Stack:
        """``stem.weight`` ``(n_expert, n_out, n_in)``, with ``stem.bias`` ``(n_expert, n_out)`` if ``bias``."""
        weight = self._take(f"{stem}.weight", (n_expert, n_out, n_in), fill=0.0)
        if not bias:
            return Stack(weight)
        return Stack(weight, self._plain(self.matrix(f"{stem}.bias", n_expert, n_out), "a bias", "biases"))

    def stacks(self, stem: str, n_expert: int, n_out: int, n_in: int, *, bias: bool = False) -> tuple[Stack, Stack]:
        """Two stacks ``(n_expert, n_out, n_in)`` in one tensor: the halves of each matrix's rows, and of its biases."""
        whole = self.stack(stem, n_expert, 2 * n_out, n_in, bias=bias)
        if whole.bias is None:
            return evolve(whole, half=0), evolve(whole, half=1)
        first, second = np.split(whole.bias.dequantize(), 2, axis=1)
        name = whole.bias.name
        return (
            Stack(whole.weight, Weight.from_array(name, first), 0),
            Stack(whole.weight, Weight.from_array(name, second), 1),
        )

    def fused(self, stem: str, sizes: tuple[int, ...], n_in: int, *, bias: bool | None = None) -> tuple[Dense, ...]:
        """One tensor ``(sum(sizes), n_in)`` as several denses, each a view of its rows."""
        whole = self.dense(stem, sum(sizes), n_in, bias=bias)
        bias_values = None if whole.bias is None else whole.bias.dequantize()
        parts, start = [], 0
        for size in sizes:
            stop = start + size
            part = None if bias_values is None else Weight.from_array(f"{stem}.bias", bias_values[start:stop])
            parts.append(Dense(whole.weight.rows(start, stop), part))
            start = stop
        return tuple(parts)

    def norm(self, kind: NormKind, stem: str, n: int, eps: float, *, bias: bool | None = None) -> Norm:
        """A norm with ``stem.weight``; ``stem.bias`` is required (True), refused as unread (False), or by default used
        by a layer norm whose file has it."""
        weight = self.vector(f"{stem}.weight", n, fill=1.0)
        wanted = bias or (bias is None and kind == "layer" and f"{stem}.bias" in self)
        return Norm(kind, eps, weight, self.vector(f"{stem}.bias", n) if wanted else None)

    def norm_of_pieces(self, kind: NormKind, stem: str, pieces: int, n: int, eps: float) -> Norm:
        """A norm without bias of ``pieces`` times ``n`` values, from ``stem.weight`` ``(pieces, n)``."""
        weight = self.matrix(f"{stem}.weight", pieces, n)
        return Norm(kind, eps, Weight.from_array(weight.name, weight.dequantize().reshape(-1)), pieces=pieces)

    def ignore(self, *names: str) -> None:
        """Mark tensors as understood although they change nothing here."""
        self._taken.update(names)

    def unread(self) -> list[str]:
        """Tensors that nobody took, in file order, without those that only repeat what the metadata say.

        Nor those of `towers`: without a picture or a sound, a text is continued as if they were not there.
        """
        return [n for n in self._weights if n not in self._taken and not derived(n) and not n.startswith(TOWERS)]

    def towers(self) -> list[str]:
        """Tensors that nobody took and that see or hear, in file order."""
        return [name for name in self._weights if name.startswith(TOWERS) and name not in self._taken]

    def _take(self, name: str, shape: tuple[int, ...], fill: float) -> Weight:
        found = self._weights.get(name)
        if found is None:
            if not self.degrade:
                raise ModelError(
                    f"tensor {name} {shape} is missing",
                    where=self.where,
                    fix="convert the model again from its original",
                )
            log.warning("%s: tensor %s is missing; using %g everywhere", self.where, name, fill)
            self.degraded += 1
            found = Weight.from_array(name, np.full(shape, fill, np.float32))
        if found.shape in ((1, *shape), shape[shape[0] == 1 :]):  # a row may be written as a vector, and the other way
            found = evolve(found, shape=shape)
        if found.shape != shape:
            raise ModelError(
                f"tensor {name} has shape {found.shape}, but the metadata call for {shape}",
                where=self.where,
                fix="the file is inconsistent: convert the model again from its original",
            )
        self._taken.add(name)
        self._taken.update(place.tensor for place in found.format.side_names(found.name).values())
        return found


def derived(name: str) -> bool:
    """Whether a tensor of this name only repeats what the metadata say: causal masks, rope frequencies."""
    return f".{name.removesuffix('.weight')}".endswith(tuple(f".{end}" for end in DERIVED))


def gguf_names(weights: Mapping[str, Weight], architecture: str, n_layer: int, where: str = "") -> dict[str, Weight]:
    """Weights by GGUF's names: foreign names are mapped by the ``gguf`` package, GGUF's stay as they are.

    Args:
        architecture: the family's name in GGUF.

    Raises:
        ModelError: two tensors have names that mean the same.
    """
    if "token_embd.weight" in weights:
        return dict(weights)
    from gguf import constants, get_tensor_name_map

    known = {name: arch for arch, name in constants.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        return dict(weights)
    table = get_tensor_name_map(known[architecture], n_layer)
    renamed: dict[str, Weight] = {}
    for name, weight in weights.items():
        role = table.get_name(name, try_suffixes=(".weight", ".bias")) or name
        if role in renamed:
            raise ModelError(f"tensors {renamed[role].name} and {name} are both {role}", where=where)
        renamed[role] = weight
    n_mapped = sum(role != weight.name for role, weight in renamed.items())
    log.warning("%s: tensor names are not GGUF's; %d of %d were mapped", where, n_mapped, len(renamed))
    return renamed


def reordered(weight: Weight, order: I32) -> Weight:
    """The same rows in another order, or a vector's values: row ``i`` of the result is row ``order[i]`` of ``weight``.

    A copy of the bytes in memory, made when first read and freed on release: rows of a file cannot be read in place out
    of order.
    """
    if len(weight.shape) == 1:
        return Weight.from_array(weight.name, weight.dequantize()[order])

    @cache
    def read() -> U8:
        return weight.raw[order].reshape(-1)

    def release() -> None:
        read.cache_clear()
        weight.release()

    side = {
        name: evolve(one, values=one.values[order]) if one.axis == "row" else one for name, one in weight.side.items()
    }
    return evolve(Weight.of(weight.name, weight.format, weight.shape, read), release=release, side=side)


def transposed(weight: Weight) -> Weight:
    """A matrix ``(n_in, n_out)`` of a plain format as ``(n_out, n_in)``.

    A copy of the bytes in memory, made when first read and freed on release.
    """
    n_in, n_out = weight.shape
    item = weight.format.row_bytes(1)

    @cache
    def read() -> U8:
        values = np.ascontiguousarray(weight.raw).view(f"V{item}").reshape(n_in, n_out)
        return np.ascontiguousarray(values.T).reshape(-1).view(np.uint8)

    def release() -> None:
        read.cache_clear()
        weight.release()

    return evolve(Weight.of(weight.name, weight.format, (n_out, n_in), read), release=release)
