"""Falcon 7B, 40B and 180B."""

from __future__ import annotations

from typing import Any

import numpy as np

from sis_hub.convert.arrange import with_rows
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters


def _n_kv(config: Hyperparameters) -> int:
    return config.integer("num_kv_heads", "n_head_kv") if config.find("num_kv_heads", "n_head_kv") is not None else 1


def _falcon(config: Hyperparameters, keys: Any) -> Extra:
    n = config.integer("hidden_size")
    if config.find("alibi") or config.find("bias") or not config.values.get("parallel_attn", True):
        raise config.refuse("this Falcon differs from the 7B and the 40B: alibi, bias or parallel_attn")
    if config.find("ffn_hidden_size") not in (None, 4 * n):
        raise config.refuse("ffn_hidden_size is not four times hidden_size")
    keys.add_context_length(2048)  # no config.json says it
    keys.add_tensor_data_layout("jploski")
    keys.add_embedding_length(n)
    keys.add_feed_forward_length(4 * n)
    keys.add_block_count(config.n_layer)
    keys.add_head_count(config.integer("num_attention_heads", "n_head"))
    keys.add_head_count_kv(_n_kv(config))
    keys.add_layer_norm_eps(config.number("layer_norm_epsilon"))
    return {}


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Each group of heads has its queries, then one key and one value; GGUF has all queries, all keys, all values."""
    n_head, n_kv = config.integer("num_attention_heads", "n_head"), _n_kv(config)
    head = config.integer("hidden_size") // n_head
    groups = np.arange((n_head + 2 * n_kv) * head, dtype=np.int32).reshape(n_kv, n_head // n_kv + 2, head)
    order = np.concatenate([groups[:, :-2].reshape(-1), groups[:, -2].reshape(-1), groups[:, -1].reshape(-1)])
    return {
        name: with_rows(weight, order) if ".query_key_value." in name else weight for name, weight in weights.items()
    }


FAMILIES = {
    "FalconForCausalLM": Family("falcon", _falcon, ("gelu",), {"layer_norm_epsilon": 1e-5}, _arranged, layout=""),
}
