"""ERNIE 4.5."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.arrange import cut
from sis_hub.convert.common import common
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters

MTP = tuple(f"model.mtp_{part}." for part in ("block", "emb_norm", "hidden_norm", "linear_proj"))


def _ernie(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    return {}


def _ernie_moe(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    keys.add_expert_count(config.integer("moe_num_experts"))
    keys.add_expert_used_count(config.integer("moe_k"))
    keys.add_interleave_moe_layer_step(config.integer("moe_layer_interval"))
    keys.add_leading_dense_block_count(config.find("moe_layer_start_index") or 0)
    keys.add_expert_feed_forward_length(config.integer("moe_intermediate_size"))
    shared = config.find("moe_num_shared_experts")
    if shared is not None:
        keys.add_expert_shared_count(shared)
    if shared:
        n_ff = config.integer("intermediate_size") // config.integer("num_key_value_heads")
        keys.add_expert_shared_feed_forward_length(n_ff)
    return {}


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Older checkpoints have q, k and v in one matrix, and gate and up."""
    q, kv = (config.integer(name) * config.head_dim for name in ("num_attention_heads", "num_key_value_heads"))
    found: Weights = {}
    for spelt, weight in weights.items():
        name = spelt.replace("ernie.", "model.")
        if ".qkv_proj." in name:
            found |= cut(
                weight, {name.replace("qkv_proj", f"{part}_proj"): n for part, n in (("q", q), ("k", kv), ("v", kv))}
            )
        elif ".up_gate_proj." in name:
            half = weight.shape[0] // 2
            found |= cut(weight, {name.replace("up_gate_proj", part): half for part in ("gate_proj", "up_proj")})
        else:
            found[name] = weight
    return found


FAMILIES = {
    "Ernie4_5ForCausalLM": Family(
        "ernie4_5", _ernie, defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}, arranged=_arranged, layout=""
    ),
    "Ernie4_5_ForCausalLM": Family(
        "ernie4_5", _ernie, defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}, arranged=_arranged, layout=""
    ),
    "Ernie4_5_MoeForCausalLM": Family(
        "ernie4_5-moe",
        _ernie_moe,
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "moe_layer_interval": 1},
        arranged=_arranged,
        skipped=MTP,
        layout="",
    ),
}
