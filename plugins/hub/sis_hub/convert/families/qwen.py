"""Qwen and Seed-OSS."""

from __future__ import annotations

from functools import partial
from typing import Any

from sis_hub.convert.common import LLAMA_DEFAULTS, common
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _qwen(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("use_sliding_window"):
        raise config.refuse("use_sliding_window is true, which GGUF has no key for in this family")
    common(config, keys)
    return {}


def _qwen_moe(config: Hyperparameters, keys: Any, *, renormalised: bool) -> Extra:
    if config.find("mlp_only_layers") or config.find("decoder_sparse_step") not in (None, 1):
        raise config.refuse("some of its layers have no experts, which GGUF has no key for in this family")
    if bool(config.find("norm_topk_prob")) != renormalised:
        raise config.refuse(f"norm_topk_prob is not {renormalised}, which GGUF has no key for in this family")
    keys.add_expert_feed_forward_length(config.integer("moe_intermediate_size"))
    if config.find("shared_expert_intermediate_size"):
        keys.add_expert_shared_feed_forward_length(config.integer("shared_expert_intermediate_size"))
    return _qwen(config, keys)


def _qwen3vl(config: Hyperparameters, keys: Any) -> Extra:
    sections = config.rope.get("mrope_section")
    if isinstance(sections, list):
        keys.add_rope_dimension_sections([*sections, 0, 0, 0, 0][:4])
    vision = config.find("vision_config") or {}
    keys.add_num_deepstack_layers(len(vision.get("deepstack_visual_indexes") or ()))
    return _qwen(config, keys)


FAMILIES = {
    "Qwen3VLForConditionalGeneration": Family(
        "qwen3vl",
        _qwen3vl,
        defaults={**LLAMA_DEFAULTS, "head_dim": 128},
        skipped=("model.visual.", "visual."),
        layout="",
    ),
    "SeedOssForCausalLM": Family("seed_oss", _qwen, defaults=LLAMA_DEFAULTS, layout=""),
    "Qwen2ForCausalLM": Family("qwen2", _qwen, defaults=LLAMA_DEFAULTS),
    "Qwen3ForCausalLM": Family("qwen3", _qwen, defaults={**LLAMA_DEFAULTS, "head_dim": 128}),
    "Qwen2MoeForCausalLM": Family("qwen2moe", partial(_qwen_moe, renormalised=False), defaults=LLAMA_DEFAULTS),
    "Qwen3MoeForCausalLM": Family("qwen3moe", partial(_qwen_moe, renormalised=True), defaults=LLAMA_DEFAULTS),
}
