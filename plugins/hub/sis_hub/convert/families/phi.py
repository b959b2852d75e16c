"""Phi."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sis_hub.convert.common import EXPERTS, USED, plain_rope, sizes, theta
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _phi3(config: Hyperparameters, keys: Any) -> Extra:
    n_ctx, rope = config.integer("max_position_embeddings", "n_positions"), config.rope
    original = int(rope.get("original_max_position_embeddings", n_ctx))
    n_rot = int(rope.get("partial_rotary_factor", 1.0) * config.head_dim)
    sizes(config, keys)
    keys.add_rope_scaling_orig_ctx_len(original)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    keys.add_rope_dimension_count(n_rot)
    keys.add_rope_freq_base(theta(config))
    keys.add_sliding_window(config.find("sliding_window") or 0)
    long, short = rope.get("long_factor"), rope.get("short_factor")
    if not long:
        if rope.get("rope_type") not in (None, "default"):
            raise config.refuse(f"rope scaling of the type {str(rope['rope_type'])[:40]!r} has no key in this family")
        return {}
    if not (isinstance(long, list) and isinstance(short, list) and len(long) == len(short) == n_rot // 2):
        raise config.refuse(f"long_factor and short_factor are not {n_rot // 2} numbers each")
    scale = n_ctx / original
    attention = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    keys.add_rope_scaling_attn_factors(attention)
    return {
        "rope_factors_long.weight": np.array(long, np.float32),
        "rope_factors_short.weight": np.array(short, np.float32),
    }


def _phi2(config: Hyperparameters, keys: Any) -> Extra:
    n_embd, n_head = config.integer("hidden_size", "n_embd"), config.integer("num_attention_heads", "n_head")
    if config.find("qk_layernorm") or config.find("num_key_value_heads") not in (None, n_head):
        raise config.refuse("this Phi differs from Phi-2 in its attention")
    if config.find("intermediate_size", "n_inner") not in (None, 4 * n_embd):
        raise config.refuse("this Phi differs from Phi-2 in its feed-forward")
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer("n_positions", "max_position_embeddings"))
    keys.add_embedding_length(n_embd)
    keys.add_feed_forward_length(4 * n_embd)
    keys.add_head_count(n_head)
    keys.add_head_count_kv(n_head)
    keys.add_layer_norm_eps(config.number("layer_norm_eps", "layer_norm_epsilon"))
    keys.add_rope_dimension_count(int(config.rope.get("partial_rotary_factor", 0.5) * n_embd) // n_head)
    keys.add_add_bos_token(False)
    plain_rope(config, keys, written=False)
    return {}


def _phimoe(config: Hyperparameters, keys: Any) -> Extra:
    extra = _phi3(config, keys)
    keys.add_expert_used_count(config.integer(*USED))
    keys.add_expert_count(config.integer(*EXPERTS))
    return extra


FAMILIES = {
    "PhiMoEForCausalLM": Family("phimoe", _phimoe, defaults={"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}, layout=""),
    "Phi3ForCausalLM": Family("phi3", _phi3, defaults={"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}),
    "PhiForCausalLM": Family("phi2", _phi2, ("gelu_new",), {"layer_norm_eps": 1e-5}, layout=""),
}
