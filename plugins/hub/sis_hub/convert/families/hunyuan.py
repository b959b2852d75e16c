"""Hunyuan's dense models."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import common, head_dim, sizes, theta
from sis_hub.convert.family import Extra, Family, Ids
from sis_hub.convert.hyperparameters import Hyperparameters

N_CTX = 256 << 10  # of those with alpha, whatever config.json says


def _hunyuan(config: Hyperparameters, keys: Any) -> Extra:
    from gguf import RopeScalingType

    if config.rope.get("rope_type") != "dynamic":
        common(config, keys)
        return {}
    base, n = theta(config), config.head_dim
    if base != 10_000.0 or config.integer("max_position_embeddings") not in (32 << 10, N_CTX):
        raise config.refuse("its dynamic positions are not those of Hunyuan's own models")
    sizes(Hyperparameters({**config.values, "max_position_embeddings": N_CTX}, config.where), keys)
    keys.add_rope_scaling_orig_ctx_len(N_CTX)
    keys.add_rope_freq_base(base * config.rope.get("alpha", 50) ** (n / (n - 2)))
    keys.add_rope_scaling_type(RopeScalingType.NONE)
    keys.add_rope_scaling_factor(1)
    keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    head_dim(config, keys)
    return {}


def _control(config: Hyperparameters, named: Ids, added: Ids) -> Ids:
    return {} if config.find("eod_token_id") is None else {"eos": config.integer("eod_token_id")}


FAMILIES = {
    "HunYuanDenseV1ForCausalLM": Family(
        "hunyuan-dense", _hunyuan, defaults={"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}, control=_control, layout=""
    ),
}
