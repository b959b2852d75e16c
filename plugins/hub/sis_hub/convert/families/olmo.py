"""OLMo."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import common, windows
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _olmo2(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    return {}


def _olmoe(config: Hyperparameters, keys: Any) -> Extra:
    if config.find("clip_qkv") is not None or config.find("norm_topk_prob"):
        raise config.refuse("clip_qkv or norm_topk_prob is set, which GGUF has no key for in this family")
    common(config, keys)
    return {}


def _olmo3(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    windows(config, keys)
    return {}


FAMILIES = {
    "Olmo3ForCausalLM": Family("olmo2", _olmo3, defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}, layout=""),
    "OlmoeForCausalLM": Family("olmoe", _olmoe, defaults={"rms_norm_eps": 1e-5, "rope_theta": 10_000.0}, layout=""),
    "Olmo2ForCausalLM": Family("olmo2", _olmo2, defaults={"rms_norm_eps": 1e-5, "rope_theta": 500_000.0}, layout=""),
}
