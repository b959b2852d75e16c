"""Granite."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.arrange import halves
from sis_hub.convert.common import LLAMA_DEFAULTS
from sis_hub.convert.families.llama import llama
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters


def _granite(config: Hyperparameters, keys: Any) -> Extra:
    for name, add in (
        ("attention_multiplier", keys.add_attention_scale),
        ("embedding_multiplier", keys.add_embedding_scale),
        ("residual_multiplier", keys.add_residual_scale),
        ("logits_scaling", keys.add_logit_scale),
    ):
        if config.find(name):
            add(config.number(name))
    return llama(config, keys, with_head_dim=False)


def _granitemoe(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("shared_intermediate_size"):
        keys.add_expert_shared_feed_forward_length(config.integer("shared_intermediate_size"))
    return _granite(config, keys)


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Gates and ups are one matrix: of a stack of experts, and of the shared one."""
    found: Weights = {}
    for name, weight in weights.items():
        stem, separator, _ = name.partition(".input_linear.")
        if not separator:
            found[name] = weight
        elif stem.endswith("block_sparse_moe"):
            found |= halves(
                weight,
                *(f"{stem.removesuffix('block_sparse_moe')}mlp.experts.{part}_proj.weight" for part in ("gate", "up")),
            )
        else:
            part = stem.removesuffix("shared_mlp")
            found |= halves(weight, *(f"{part}mlp.shared_expert.{half}_proj.weight" for half in ("gate", "up")))
    return found


_MOE = Family("granitemoe", _granitemoe, defaults=LLAMA_DEFAULTS, arranged=_arranged, layout="llama")
FAMILIES = {
    "GraniteMoeForCausalLM": _MOE,
    "GraniteMoeSharedForCausalLM": _MOE,
    "GraniteForCausalLM": Family("granite", _granite, defaults=LLAMA_DEFAULTS, layout="llama"),
}
