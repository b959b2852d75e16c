"""gpt-oss, whose experts are published in MXFP4."""

from __future__ import annotations

from typing import Any

from sis_core.errors import SourceError
from sis_hub.convert.arrange import every_second, transposed_stack
from sis_hub.convert.common import common
from sis_hub.convert.family import Extra, Family, Weights
from sis_hub.convert.hyperparameters import Hyperparameters
from sis_hub.convert.mxfp4 import mxfp4


def _gpt_oss(config: Hyperparameters, keys: Any) -> Extra:
    kinds = config.find("layer_types")
    if kinds is not None and kinds != ["full_attention" if i % 2 else "sliding_attention" for i in range(len(kinds))]:
        raise config.refuse("layer_types has windows elsewhere than in every other layer")
    common(config, keys)
    keys.add_sliding_window(config.integer("sliding_window"))
    keys.add_expert_feed_forward_length(config.integer("intermediate_size"))
    return {}


def _arranged(config: Hyperparameters, weights: Weights) -> Weights:
    """Rows of gates and of ups alternate; stacks of floats are by columns, those of MXFP4 by rows."""
    found: Weights = {}
    for name, weight in weights.items():
        if name.endswith(".sinks"):
            found[f"{name}.weight"] = weight
        elif name.endswith("_scales"):
            continue
        elif ".mlp.experts." in name:
            found |= _experts(name, weight, weights)
        else:
            found[name] = weight
    return found


def _experts(name: str, weight: Any, weights: Weights) -> Weights:
    stem, kind = name, "weight"
    if name.endswith("_bias"):
        stem, kind = name.removesuffix("_bias"), "bias"
    elif name.endswith("_blocks"):
        stem = name.removesuffix("_blocks")
        scales = weights.get(f"{stem}_scales")
        if scales is None:
            raise SourceError(f"{name!r} has no scales", where="safetensors", fix="download it again")
        weight = mxfp4(stem, weight, scales)
    else:
        weight = transposed_stack(weight)
    if not stem.endswith("gate_up_proj"):
        return {f"{stem}.{kind}": weight}
    names = (f"{stem.removesuffix('gate_up_proj')}{part}.{kind}" for part in ("gate_proj", "up_proj"))
    return {part: every_second(part, weight, i) for i, part in enumerate(names)}


FAMILIES = {
    "GptOssForCausalLM": Family(
        "gpt-oss",
        _gpt_oss,
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 150_000.0, "head_dim": 64},
        arranged=_arranged,
        quantised=("mxfp4",),
        layout="",
    ),
}
