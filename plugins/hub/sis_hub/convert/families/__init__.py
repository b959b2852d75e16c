"""The families whose checkpoints can be told in GGUF's terms, by the class that config.json names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from sis_core.errors import SourceError
from sis_hub.convert.family import Family
from sis_hub.convert.hyperparameters import Hyperparameters

#: By the first of ``architectures`` in config.json. Each file of this folder has some.
FAMILIES: Mapping[str, Family] = {
    name: family
    for found in iter_modules(__path__)
    for name, family in import_module(f"{__name__}.{found.name}").FAMILIES.items()
}


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
