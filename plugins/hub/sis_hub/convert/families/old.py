"""Families of 2022 and 2023: BLOOM, MPT, Baichuan, InternLM 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_hub.convert.arrange import cut, with_rows
from sis_hub.convert.common import LLAMA_DEFAULTS, common
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters


def _bloom(config: Hyperparameters, keys: Any) -> Extra:
    n, n_head = config.integer("hidden_size", "n_embed"), config.integer("n_head", "num_attention_heads")
    if config.find("apply_residual_connection_post_layernorm"):
        raise config.refuse("apply_residual_connection_post_layernorm is set, which GGUF has no key for")
    keys.add_context_length(config.find("seq_length") or n)
    keys.add_embedding_length(n)
    keys.add_feed_forward_length(4 * n)
    keys.add_block_count(config.n_layer)
    keys.add_head_count(n_head)
    keys.add_head_count_kv(n_head)
    keys.add_layer_norm_eps(config.number("layer_norm_epsilon"))
    return {}


def _bloom_arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Each head has its query, key and value; GGUF has all queries, all keys, all values."""
    n_head = config.integer("n_head", "num_attention_heads")
    n = config.integer("hidden_size", "n_embed")
    order = np.arange(3 * n, dtype=np.int32).reshape(n_head, 3, -1).swapaxes(0, 1).reshape(-1)
    return {
        name.removeprefix("transformer."): with_rows(weight, order) if ".query_key_value." in name else weight
        for name, weight in weights.items()
    }


def _mpt(config: Hyperparameters, keys: Any) -> Extra:
    n, attention = config.integer("d_model"), config.find("attn_config") or {}
    if attention.get("qk_ln") or attention.get("softmax_scale") or config.find("logit_scale"):
        raise config.refuse("qk_ln, softmax_scale or logit_scale is set, which GGUF has no key for in this family")
    keys.add_context_length(config.integer("max_seq_len"))
    keys.add_embedding_length(n)
    keys.add_block_count(config.n_layer)
    keys.add_feed_forward_length(4 * n)
    keys.add_head_count(config.integer("n_heads"))
    if attention.get("kv_n_heads"):
        keys.add_head_count_kv(int(attention["kv_n_heads"]))
    keys.add_layer_norm_eps(1e-5)
    if attention.get("clip_qkv") is not None:
        keys.add_clamp_kqv(float(attention["clip_qkv"]))
    keys.add_max_alibi_bias(float(attention.get("alibi_bias_max", 8)) if attention.get("alibi") else 0.0)
    return {}


def _baichuan(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys, n_kv=("num_attention_heads",))
    keys.add_tensor_data_layout("Meta AI original pth")
    keys.add_rope_dimension_count(config.integer("hidden_size") // config.integer("num_attention_heads"))
    return {}


def _baichuan_arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """One matrix has q, k and v; pairs that are rotated lie side by side in GGUF."""
    n, n_head = config.integer("hidden_size"), config.integer("num_attention_heads")
    pairs = np.arange(n, dtype=np.int32).reshape(n_head, 2, -1).swapaxes(1, 2).reshape(-1)
    found: Weights = {}
    for name, weight in weights.items():
        if ".W_pack." not in name:
            found[name] = weight
            continue
        parts = cut(weight, {name.replace("W_pack", f"{part}_proj"): n for part in "qkv"})
        found |= {part: w if ".v_proj." in part else with_rows(w, pairs) for part, w in parts.items()}
    return found


FAMILIES = {
    "BloomForCausalLM": Family("bloom", _bloom, ("gelu",), {"layer_norm_epsilon": 1e-5}, _bloom_arranged, layout=""),
    "MPTForCausalLM": Family("mpt", _mpt, ("gelu",), layout=""),
    "BaichuanForCausalLM": Family(
        "baichuan", _baichuan, defaults=LLAMA_DEFAULTS, arranged=_baichuan_arranged, layout=""
    ),
    "BaiChuanForCausalLM": Family(
        "baichuan", _baichuan, defaults=LLAMA_DEFAULTS, arranged=_baichuan_arranged, layout=""
    ),
}
