"""LLaMA and those that differ from it in a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sis_hub.convert.arrange import halves, transposed_stack
from sis_hub.convert.common import LLAMA_DEFAULTS, N_FF, common, head_dim, llama3_rope
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters

SMOLLM3_STEP = 4  # every fourth layer of SmolLM3 has no rotation


def llama(config: Hyperparameters, keys: Any, *, with_head_dim: bool = True, n_ff: Sequence[str] = N_FF) -> Extra:
    common(config, keys, n_ff=n_ff)
    if with_head_dim and config.find("head_dim") is None:
        head_dim(config, keys)
    keys.add_vocab_size(config.integer("vocab_size"))
    keys.add_rope_dimension_count(config.head_dim)
    return llama3_rope(config)


def _mistral(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("sliding_window") is not None:
        keys.add_sliding_window(config.integer("sliding_window"))
    return llama(config, keys)


def _mixtral(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("sliding_window") is not None:
        keys.add_sliding_window(config.integer("sliding_window"))
    return llama(config, keys, with_head_dim=False)


def _ministral3(config: Hyperparameters, keys: Any) -> Extra:
    rope = config.rope
    if rope.get("rope_type") != "yarn":
        raise config.refuse("its rope scaling is not of the type 'yarn'")
    keys.add_rope_scaling_yarn_log_mul(float(rope.get("mscale_all_dim", 1.0)))
    keys.add_attn_temperature_scale(float(rope.get("llama_4_scaling_beta", 0.0)))
    return _mistral(config, keys)


def _smollm3(config: Hyperparameters, keys: Any) -> Extra:
    n, given = config.n_layer, config.find("no_rope_layers")
    if given is not None and given != [int((i + 1) % SMOLLM3_STEP != 0) for i in range(n)]:
        raise config.refuse(f"no_rope_layers names others than every {SMOLLM3_STEP}th layer")
    return llama(config, keys, with_head_dim=False)


def _llama4(config: Hyperparameters, keys: Any) -> Extra:
    kinds = config.find("layer_types")
    llama(config, keys, n_ff=("intermediate_size_mlp",))
    keys.add_interleave_moe_layer_step(config.integer("interleave_moe_layer_step"))
    keys.add_expert_feed_forward_length(config.integer("intermediate_size"))
    if kinds is not None and set(kinds) == {"full_attention"}:
        keys.add_sliding_window(0)
    return {}


def _llama4_arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Stacks are by columns, gates before ups."""
    found: Weights = {}
    for name, weight in weights.items():
        if name.endswith(".experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            found |= halves(transposed_stack(weight), f"{stem}gate_proj.weight", f"{stem}up_proj.weight")
        elif name.endswith(".experts.down_proj"):
            found[f"{name}.weight"] = transposed_stack(weight)
        else:
            found[name] = weight
    return found


FAMILIES = {
    "Llama4ForCausalLM": Family(
        "llama4",
        _llama4,
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0},
        arranged=_llama4_arranged,
        layout="",
    ),
    "LlamaForCausalLM": Family("llama", llama, defaults=LLAMA_DEFAULTS),
    "MistralForCausalLM": Family("llama", _mistral, defaults=LLAMA_DEFAULTS),
    "MixtralForCausalLM": Family("llama", _mixtral, defaults=LLAMA_DEFAULTS),
    "Ministral3ForCausalLM": Family("mistral3", _ministral3, defaults=LLAMA_DEFAULTS, layout="llama"),
    "SmolLM3ForCausalLM": Family("smollm3", _smollm3, defaults={**LLAMA_DEFAULTS, "rope_theta": 2_000_000.0}),
    "ArceeForCausalLM": Family("arcee", llama, ("relu2",), {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}),
}
