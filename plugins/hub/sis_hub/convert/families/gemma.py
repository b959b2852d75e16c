"""Gemma."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import LLAMA_DEFAULTS, TANH, common, head_dim, plain_rope, sizes
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters

VISION = ("vision_tower.", "vision_model.", "multi_modal_projector.", "model.vision_tower.",
           "model.multi_modal_projector.")  # fmt: skip
GEMMA3_DEFAULTS = {
    "max_position_embeddings": 131072, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "sliding_window": 4096,
    "vocab_size": 262_208,
}  # fmt: skip


def _gemma(config: Hyperparameters, keys: Any) -> Extra:
    sizes(config, keys)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    head_dim(config, keys)
    plain_rope(config, keys, written=False)
    keys.add_add_space_prefix(False)
    return {}


def _gemma2(config: Hyperparameters, keys: Any) -> Extra:
    for name, add in (
        ("attn_logit_softcapping", keys.add_attn_logit_softcapping),
        ("final_logit_softcapping", keys.add_final_logit_softcapping),
    ):
        if config.find(name) is not None:
            add(config.number(name))
    keys.add_sliding_window(config.integer("sliding_window"))
    return _gemma(config, keys)


def _gemma3(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    if config.find("attn_logit_softcapping") is not None:
        raise config.refuse("attn_logit_softcapping is set, which this family does not have")
    if config.find("final_logit_softcapping"):
        keys.add_final_logit_softcapping(config.number("final_logit_softcapping"))
    if config.find("sliding_window_pattern", "_sliding_window_pattern") != 1:
        keys.add_sliding_window(config.integer("sliding_window"))
    keys.add_add_space_prefix(False)
    return {}


FAMILIES = {
    "GemmaForCausalLM": Family("gemma", _gemma, TANH, {**LLAMA_DEFAULTS, "head_dim": 256}, head_is_embedding=True),
    "Gemma2ForCausalLM": Family("gemma2", _gemma2, TANH, {**LLAMA_DEFAULTS, "head_dim": 256}, head_is_embedding=True),
    "Gemma3ForCausalLM": Family("gemma3", _gemma3, TANH, GEMMA3_DEFAULTS),
    "Gemma3ForConditionalGeneration": Family("gemma3", _gemma3, TANH, GEMMA3_DEFAULTS, skipped=VISION),
}
