"""Command R and R7B."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import common
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _command_r(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys, n_ctx=("model_max_length", "max_position_embeddings"))
    keys.add_logit_scale(config.number("logit_scale"))
    _no_scaling(keys)
    return {}


def _cohere2(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    kinds = config.find("layer_types")
    if kinds is not None and kinds != [
        "full_attention" if i % 4 == 3 else "sliding_attention" for i in range(len(kinds))
    ]:
        raise config.refuse("layer_types has windows elsewhere than in three of four layers")
    keys.add_sliding_window(config.integer("sliding_window"))
    keys.add_vocab_size(config.integer("vocab_size"))
    keys.add_rope_dimension_count(int(config.number("rotary_pct") * config.head_dim))
    _no_scaling(keys)
    keys.add_logit_scale(config.number("logit_scale"))
    return {}


def _no_scaling(keys: Any) -> None:
    from gguf import RopeScalingType

    keys.add_rope_scaling_type(RopeScalingType.NONE)


FAMILIES = {
    "CohereForCausalLM": Family(
        "command-r",
        _command_r,
        defaults={"layer_norm_eps": 1e-5, "rope_theta": 10_000.0},
        head_is_embedding=True,
        layout="",
    ),
    "Cohere2ForCausalLM": Family(
        "cohere2",
        _cohere2,
        defaults={"layer_norm_eps": 1e-5, "rope_theta": 10_000.0, "rotary_pct": 1.0},
        head_is_embedding=True,
        layout="",
    ),
}
