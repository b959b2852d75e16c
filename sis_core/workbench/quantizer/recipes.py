"""Mixes of formats under one name, and what a head is stored in.

The mixes are those that llama.cpp's quantize tool makes under the same names (``llama_tensor_get_type_impl`` in its
llama-quant.cpp): a layer counts as sensitive in the first and last eighth of the network and in every third layer
between; matrices that hold values of attention, fused or not, are counted among themselves. What that tool does for
models of 70B alone is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

from attrs import field, frozen

HEAD_BITS = 6.5  # a head in fewer bits costs more quality than it saves bytes
HEAD_FORMATS = ("Q6_K", "Q8_0")

_LAYER = re.compile(r"blk\.([0-9]+)\.(.+)", re.ASCII)
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")  # what holds values of attention, alone or with others
_EIGHT_EXPERTS = {"attn_v": "Q8_0", "attn_k": "Q8_0"}  # small beside eight experts


@frozen
class Stack:
    """What a mix asks of a model.

    Attributes:
        n_layer: how many layers its tensors belong to.
        values: the layers that hold values of attention, in order.
    """

    n_layer: int
    values: tuple[int, ...] = ()
    architecture: str = ""
    n_expert: int = 0

    @classmethod
    def of(cls, names: Iterable[str], architecture: str = "", n_expert: int = 0) -> Self:
        """The stack of a model with tensors of these names."""
        found = [place for name in names if (place := _role(name))]
        values = sorted(layer for layer, role in found if role == "attn_v")
        return cls(1 + max((layer for layer, _ in found), default=-1), tuple(values), architecture, n_expert)

    def place(self, layer: int, role: str) -> tuple[int, int]:
        """Where a tensor stands among those that are counted with it, and how many these are."""
        return (self.values.index(layer), len(self.values)) if role == "attn_v" else (layer, self.n_layer)


@frozen
class Recipe:
    """A base format, and better ones for some tensors.

    Roles are those of `_role`.

    Attributes:
        base: the format of most tensors.
        sensitive: role to format, in sensitive layers.
        early: role to format, in the first eighth of the layers.
        first: role to format, in the first four layers.
    """

    base: str
    sensitive: Mapping[str, str] = field(factory=dict)
    early: Mapping[str, str] = field(factory=dict)
    first: Mapping[str, str] = field(factory=dict)

    def format_of(self, name: str, stack: Stack) -> str:
        """The name of the format for a tensor of a model."""
        if (found := _role(name)) is None:
            return self.base
        layer, role = found
        at, n = stack.place(layer, role)
        if stack.n_expert == 8 and role in _EIGHT_EXPERTS:
            return _EIGHT_EXPERTS[role]
        if stack.n_expert == 8 and role == "attn_output" and self.base == "Q4_K":
            return "Q5_K"
        if stack.architecture == "falcon" and role == "ffn_down" and self.base == "Q4_K":
            return self._falcon_down(at, n)
        if role in self.sensitive and is_sensitive(at, n):
            return self.sensitive[role]
        if role in self.early and at < n // 8:
            return self.early[role]
        if role in self.first and at < 4:
            return self.first[role]
        return self.base

    def _falcon_down(self, layer: int, n_layer: int) -> str:
        """Falcon's second matrix of the feed-forward layer suffers less than others."""
        if "ffn_down" not in self.sensitive or not is_sensitive(layer, n_layer):
            return self.base
        return self.sensitive["ffn_down"] if layer < n_layer // 16 else "Q5_K"


_MORE_BITS = {"attn_v": "Q6_K", "ffn_down": "Q6_K"}
RECIPES = {
    "Q4_K_S": Recipe("Q4_K", early={"ffn_down": "Q5_K"}, first={"attn_v": "Q5_K"}),
    "Q4_K_M": Recipe("Q4_K", sensitive=_MORE_BITS),
    "Q5_K_S": Recipe("Q5_K"),
    "Q5_K_M": Recipe("Q5_K", sensitive=_MORE_BITS),
}


def head_formats(stack: Stack) -> tuple[str, ...]:
    """What the matrix that gives the logits is stored in, the first that fits."""
    return HEAD_FORMATS[1:] if stack.architecture == "falcon" else HEAD_FORMATS


def is_sensitive(layer: int, n_layer: int) -> bool:
    """Whether a layer gets more bits in the mixes whose names end in M."""
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def _role(name: str) -> tuple[int, str] | None:
    """A tensor's layer and role: ``attn_v`` for all that has values in it, ``ffn_down`` for those of experts too."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return None
    role = match[2].removesuffix(".weight")
    role = "attn_v" if role in _VALUES else "ffn_down" if role.startswith("ffn_down") else role
    return int(match[1]), role
