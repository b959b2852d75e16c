"""StableLM 1.6B, 3B and 12B."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.arrange import joined
from sis_hub.convert.common import plain_rope, sizes
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters


def _stablelm(config: Hyperparameters, keys: Any) -> Extra:
    sizes(config, keys)
    keys.add_rope_dimension_count(int(config.rope.get("partial_rotary_factor", 0.25) * config.head_dim))
    keys.add_parallel_residual(bool(config.values.get("use_parallel_residual", True)))
    keys.add_layer_norm_eps(config.number("layer_norm_eps", "norm_eps"))
    plain_rope(config, keys, written=False)
    return {}


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """The norms of heads, a vector for each, become a matrix."""
    found: Weights = {}
    for name, weight in weights.items():
        before, separator, after = name.partition("_layernorm.norms.")
        if not separator:
            found[name] = weight
        elif after == "0.weight":
            whole = f"{before}_layernorm.weight"
            heads = [weights[f"{before}{separator}{i}.weight"] for i in range(_count(weights, before + separator))]
            found[whole] = joined(whole, heads)
    return found


def _count(weights: Weights, beginning: str) -> int:
    return sum(name.startswith(beginning) for name in weights)


FAMILIES = {
    "StableLmForCausalLM": Family(
        "stablelm", _stablelm, defaults={"layer_norm_eps": 1e-5}, arranged=_arranged, layout=""
    ),
    "StableLMEpochForCausalLM": Family(
        "stablelm", _stablelm, defaults={"layer_norm_eps": 1e-5}, arranged=_arranged, layout=""
    ),
}
