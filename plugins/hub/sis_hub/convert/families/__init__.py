"""The families whose checkpoints can be told in GGUF's terms, by the class that config.json names."""

from __future__ import annotations

from collections.abc import Mapping

from sis_core.errors import SourceError
from sis_hub.convert.families import (
    cohere,
    ernie,
    exaone,
    falcon,
    gemma,
    glm,
    gpt,
    gpt_oss,
    granite,
    hunyuan,
    llama,
    old,
    olmo,
    phi,
    qwen,
    stablelm,
    starcoder,
)
from sis_hub.convert.families.family import Family
from sis_hub.convert.hyperparameters import Hyperparameters

PARTS = (
    cohere,
    ernie,
    exaone,
    falcon,
    gemma,
    glm,
    gpt,
    gpt_oss,
    granite,
    hunyuan,
    llama,
    old,
    olmo,
    phi,
    qwen,
    stablelm,
    starcoder,
)
#: By the first of ``architectures`` in config.json.
FAMILIES: Mapping[str, Family] = {name: family for part in PARTS for name, family in part.FAMILIES.items()}


def family_of(architecture: str, where: str) -> Family:
    """The family of a class of transformers.

    Raises:
        SourceError: none that can be converted here.
    """
    found = FAMILIES.get(architecture)
    if found is None:
        raise SourceError(
            f"models of the class {architecture[:80]!r} cannot be converted here",
            where=where,
            fix="look for a GGUF file of this model, or convert it with llama.cpp's convert_hf_to_gguf.py",
        )
    return found


def check_activation(family: Family, config: Hyperparameters) -> None:
    """SourceError when the feed-forward has an activation that the family has not."""
    found = config.find("hidden_activation", "hidden_act", "activation_function")
    if found is not None and found not in family.activations:
        raise config.refuse(f"its activation is {str(found)[:40]!r}, and this family has {family.activations[0]!r}")
