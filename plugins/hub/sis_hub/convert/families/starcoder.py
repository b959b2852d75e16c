"""StarCoder 2."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import TANH, common
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _starcoder2(config: Hyperparameters, keys: Any) -> Extra:
    n = config.find("sliding_window")
    if n is not None and n < config.integer("max_position_embeddings"):
        raise config.refuse("its window is smaller than its context, which GGUF has no key for in this family")
    common(config, keys)
    return {}


FAMILIES = {
    "Starcoder2ForCausalLM": Family(
        "starcoder2", _starcoder2, TANH, {"norm_epsilon": 1e-5, "rope_theta": 10_000.0}, layout=""
    ),
}
