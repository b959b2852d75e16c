"""Families of 2022 and 2023: BLOOM, MPT, Baichuan, InternLM 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_hub.convert.arrange import cut, with_rows
from sis_hub.convert.common import LLAMA_DEFAULTS, common, plain_rope, rope_scaling, sizes
from sis_hub.convert.family import Extra, Family, Ids, Weights
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


def _internlm2(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("bias"):
        raise config.refuse("its attention has biases, which GGUF has no tensors for in this family")
    sizes(config, keys)
    plain_rope(config, keys, written=True)
    if config.rope.get("rope_type") != "dynamic":  # that begins where the context ends
        rope_scaling(config, keys)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    return {}


def _internlm2_arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """A group of heads has its queries, one key, one value; pairs that are rotated lie side by side in GGUF."""
    n_head, n_kv = config.integer("num_attention_heads"), config.integer("num_key_value_heads", "num_attention_heads")
    n = config.integer("hidden_size") // n_head
    groups = np.arange((n_head + 2 * n_kv) * n, dtype=np.int32).reshape(n_kv, n_head // n_kv + 2, 2, n // 2)
    pairs = groups.swapaxes(2, 3)
    orders = {"wq": pairs[:, :-2].reshape(-1), "wk": pairs[:, -2].reshape(-1), "wv": groups[:, -1].reshape(-1)}
    found: Weights = {}
    for name, weight in weights.items():
        if ".wqkv." in name:
            names = {name.replace("wqkv", part): order for part, order in orders.items()}
            found |= {part: with_rows(weight, order, part) for part, order in names.items()}
        else:
            found[name] = weight
    return found


def _end_of_turn(config: Hyperparameters, named: Ids, added: Ids) -> Ids:
    return {"eos": added["<|im_end|>"]} if "<|im_end|>" in added else {}


FAMILIES = {
    "BloomForCausalLM": Family("bloom", _bloom, ("gelu",), {"layer_norm_epsilon": 1e-5}, _bloom_arranged, layout=""),
    "MPTForCausalLM": Family("mpt", _mpt, ("gelu",), layout=""),
    "BaichuanForCausalLM": Family(
        "baichuan", _baichuan, defaults=LLAMA_DEFAULTS, arranged=_baichuan_arranged, layout=""
    ),
    "BaiChuanForCausalLM": Family(
        "baichuan", _baichuan, defaults=LLAMA_DEFAULTS, arranged=_baichuan_arranged, layout=""
    ),
    "InternLM2ForCausalLM": Family(
        "internlm2",
        _internlm2,
        defaults=LLAMA_DEFAULTS,
        arranged=_internlm2_arranged,
        control=_end_of_turn,
        layout="",
    ),
}
