"""Qwen: logits of other programs, and what every family promises."""

from types import MappingProxyType

from family_suite import FamilySuite


class TestQwen(FamilySuite):
    goldens = ("qwen2", "qwen2moe", "qwen3", "qwen3moe", "qwen3vl")
    set_aside = MappingProxyType({"qwen3vl": ("rope.dimension_sections", "n_deepstack_layers")})  # of images
