"""Mixes of formats under one name, and what a head is stored in.

The mixes are those that llama.cpp's quantize tool documents under the same names: a layer counts as sensitive in the
first and last eighth of the network and in every third layer between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import field, frozen

HEAD_BITS = 6.5  # a head in fewer bits costs more quality than it saves bytes
HEAD_FORMATS = ("Q6_K", "Q8_0")

_LAYER = re.compile(r"blk\.([0-9]+)\.(.+)", re.ASCII)


@frozen
class Recipe:
    """A base format, and better ones for some tensors.

    Attributes:
        base: the format of most tensors.
        sensitive: role to format, in sensitive layers.
        early: role to format, in the first eighth of the layers.
        always: role to format, in every layer.
        first: role to format, in the first four layers.
    """

    base: str
    sensitive: Mapping[str, str] = field(factory=dict)
    early: Mapping[str, str] = field(factory=dict)
    always: Mapping[str, str] = field(factory=dict)
    first: Mapping[str, str] = field(factory=dict)

    def format_of(self, name: str, n_layer: int) -> str:
        """The name of the format for tensor ``name`` of a network with ``n_layer`` layers."""
        match = _LAYER.fullmatch(name)
        if match is None:
            return self.base
        layer, role = int(match[1]), match[2].removesuffix(".weight")
        if role in self.always:
            return self.always[role]
        if role in self.sensitive and is_sensitive(layer, n_layer):
            return self.sensitive[role]
        if role in self.early and layer < n_layer // 8:
            return self.early[role]
        if role in self.first and layer < 4:
            return self.first[role]
        return self.base


_MORE_BITS = {"attn_v": "Q6_K", "ffn_down": "Q6_K"}
RECIPES = {
    "Q4_K_S": Recipe("Q4_K", early={"ffn_down": "Q5_K"}, first={"attn_v": "Q5_K"}),
    "Q4_K_M": Recipe("Q4_K", sensitive=_MORE_BITS, always={"attn_qkv": "Q5_K"}),
    "Q5_K_S": Recipe("Q5_K"),
    "Q5_K_M": Recipe("Q5_K", sensitive=_MORE_BITS, always={"attn_qkv": "Q6_K"}),
}


def is_sensitive(layer: int, n_layer: int) -> bool:
    """Whether a layer gets more bits in the mixes whose names end in M."""
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def layer_count(names: list[str]) -> int:
    """How many layers tensors named so belong to."""
    return 1 + max((int(match[1]) for name in names if (match := _LAYER.fullmatch(name))), default=-1)
