"""GLM-4 and GLM-4.5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sis_hub.convert.common import common
from sis_hub.convert.family import Extra, Family, Ids, Weights
from sis_hub.convert.hyperparameters import Hyperparameters


def _glm4(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys, partial=True)
    if "mrope_section" in config.rope:
        raise config.refuse("it has positions of pictures, and only text is converted")
    keys.add_rope_dimension_count(int(config.head_dim * config.rope.get("partial_rotary_factor", 0.5)))
    return {}


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Without the layers that guess further tokens, which follow the others."""
    last = config.n_layer
    return {
        name: weight
        for name, weight in weights.items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < last
    }


def _glm4moe(config: Hyperparameters, keys: Any) -> Extra:
    from gguf import ExpertGatingFuncType

    _glm4(config, keys)
    keys.add_expert_group_count(config.integer("n_group"))
    keys.add_expert_group_used_count(config.integer("topk_group"))
    keys.add_expert_feed_forward_length(config.integer("moe_intermediate_size"))
    keys.add_expert_shared_count(config.integer("n_shared_experts"))
    keys.add_leading_dense_block_count(config.values.get("first_k_dense_replace", 1))
    keys.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    keys.add_expert_weights_scale(config.number("routed_scaling_factor"))
    keys.add_expert_weights_norm(bool(config.values.get("norm_topk_prob", True)))
    keys.add_nextn_predict_layers(0)
    return {}


def _named(**names: str) -> Callable[[Hyperparameters, Ids, Ids], Ids]:
    """Special tokens by their texts, those that are not named otherwise."""
    return lambda config, named, added: {
        kind: added[text] for kind, text in names.items() if text in added and kind not in named
    }


_END, _USER = "<|endoftext|>", "<|user|>"
_DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}
_ONE = {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "n_shared_experts": 1}
FAMILIES = {
    "Glm4ForCausalLM": Family(
        "glm4",
        _glm4,
        defaults={"rms_norm_eps": 1.5625e-7, "rope_theta": 10_000.0, "head_dim": 128},
        control=_named(bos=_END, eos=_END, unk=_END, eot=_USER),
        layout="",
    ),
    "Glm4MoeForCausalLM": Family(
        "glm4moe",
        _glm4moe,
        defaults=_DEFAULTS | _ONE,
        arranged=_arranged,
        control=_named(bos="[gMASK]", unk=_END, eot=_USER, eom="<|observation|>"),
        layout="",
    ),
}
