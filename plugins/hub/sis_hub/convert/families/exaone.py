"""EXAONE 4."""

from __future__ import annotations

from typing import Any

from sis_hub.convert.common import common, llama3_rope, windows
from sis_hub.convert.family import Extra, Family
from sis_hub.convert.hyperparameters import Hyperparameters


def _exaone4(config: Hyperparameters, keys: Any) -> Extra:
    common(config, keys)
    keys.add_vocab_size(config.integer("vocab_size"))
    if config.find("sliding_window") is not None:
        windows(config, keys)
    return llama3_rope(config, factor=16.0)


FAMILIES = {
    "Exaone4ForCausalLM": Family(
        "exaone4", _exaone4, defaults={"rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0}, layout=""
    ),
}
