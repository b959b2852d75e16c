"""Keys that families have alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sis_hub.convert.family import Extra
from sis_hub.convert.hyperparameters import Hyperparameters

LLAMA_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
EXPERTS, USED = (
    ("num_local_experts", "num_experts", "n_routed_experts"),
    ("num_experts_per_tok", "num_experts_per_token"),
)
GELU, TANH = ("gelu",), ("gelu_pytorch_tanh", "gelu_new", "gelu")


N_CTX, N_FF = ("max_position_embeddings", "n_positions"), ("intermediate_size",)
N_KV = ("num_key_value_heads", "num_attention_heads")


def sizes(
    config: Hyperparameters,
    keys: Any,
    *,
    n_ctx: Sequence[str] = N_CTX,
    n_ff: Sequence[str] = N_FF,
    n_kv: Sequence[str] = N_KV,
) -> None:
    """What every network has; ``n_ctx``, ``n_ff`` and ``n_kv`` name where config.json has them."""
    keys.add_block_count(config.n_layer)
    keys.add_context_length(config.integer(*n_ctx))
    keys.add_embedding_length(config.integer("hidden_size"))
    keys.add_feed_forward_length(config.integer(*n_ff))
    keys.add_head_count(config.integer("num_attention_heads"))
    keys.add_head_count_kv(config.integer(*n_kv))


def common(
    config: Hyperparameters,
    keys: Any,
    *,
    partial: bool = False,
    n_ctx: Sequence[str] = N_CTX,
    n_ff: Sequence[str] = N_FF,
    n_kv: Sequence[str] = N_KV,
) -> None:
    """What the families of LLaMA's shape have alike; ``partial`` as for `rope_scaling`, the others for `sizes`."""
    sizes(config, keys, n_ctx=n_ctx, n_ff=n_ff, n_kv=n_kv)
    rope_scaling(config, keys, partial=partial)
    plain_rope(config, keys, written=True)
    if config.rope_theta_window is not None:
        keys.add_rope_freq_base_swa(config.rope_theta_window)
    if config.find("rms_norm_eps") is None:
        keys.add_layer_norm_eps(config.number("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"))
    else:
        keys.add_layer_norm_rms_eps(config.number("rms_norm_eps"))
    if config.find(*EXPERTS) is not None:
        keys.add_expert_count(config.integer(*EXPERTS))
    if config.find(*USED) is not None:
        keys.add_expert_used_count(config.integer(*USED))
    if config.find("head_dim") is not None:
        head_dim(config, keys)


def windows(config: Hyperparameters, keys: Any) -> None:
    """A window, and which layers have it."""
    keys.add_sliding_window(config.integer("sliding_window"))
    kinds = config.find("layer_types")
    if not isinstance(kinds, list) or len(kinds) != config.n_layer:
        raise config.refuse("layer_types does not say of each layer whether it has a window")
    keys.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])


def head_dim(config: Hyperparameters, keys: Any) -> None:
    keys.add_key_length(config.head_dim)
    keys.add_value_length(config.head_dim)


def theta(config: Hyperparameters) -> float:
    value = config.rope.get("rope_theta", 10_000.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise config.refuse(f"rope_theta is {str(value)[:40]!r}, not a number")
    return float(value)


def plain_rope(config: Hyperparameters, keys: Any, *, written: bool) -> None:
    """The base of the rotation; where converters leave it out, only another than 10,000 is written."""
    base = theta(config)
    if written or base != 10_000.0:
        keys.add_rope_freq_base(base)


def rope_scaling(config: Hyperparameters, keys: Any, *, partial: bool = False) -> None:
    """With ``partial`` a rotation of part of a head is the caller's matter."""
    from gguf import RopeScalingType

    rope = config.rope
    kind = rope.get("rope_type") or "default"
    if not partial and rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise config.refuse("partial_rotary_factor is set, which this family does not have")
    if kind in ("default", "llama3"):  # the latter is a tensor of its own
        return
    if kind not in ("linear", "yarn") or "factor" not in rope:
        raise config.refuse(f"rope scaling of the type {str(kind)[:40]!r} has no key in GGUF")
    keys.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
    keys.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        keys.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        for name, add in (
            ("extrapolation_factor", keys.add_rope_scaling_yarn_ext_factor),
            ("attention_factor", keys.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", keys.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", keys.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(name) is not None:
                add(rope[name])


def llama3_rope(config: Hyperparameters, factor: float = 8.0) -> Extra:
    """Llama 3.1's divisors of the frequencies: 1 for short waves, ``factor`` for long ones, a slope between them."""
    rope = config.rope
    if rope.get("rope_type") != "llama3":
        return {}
    n_rot = config.head_dim
    frequencies = 1.0 / theta(config) ** (np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)
    factor, low, high = rope.get("factor", factor), rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    original = rope.get("original_max_position_embeddings", 8192)
    waves = 2 * math.pi / frequencies
    smooth = (original / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(waves < original / high, 1.0, np.where(waves > original / low, factor, between))
    return {"rope_freqs.weight": factors.astype(np.float32)}
