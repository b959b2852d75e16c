"""How one family of checkpoints is told in GGUF's keys and tensors.

Keys and their values are those that llama.cpp's converters write (conversion/*.py in its sources); what a configuration
asks for beyond them is written too where GGUF has a key, and refused where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from sis_core.arrays import F32
from sis_core.quant import Weight
from sis_hub.convert.hyperparameters import Hyperparameters

Extra = Mapping[str, F32]
"""Tensors that follow from the configuration."""

Ids = Mapping[str, int]
"""Tokens by name."""

Weights = dict[str, Weight]
"""Tensors by the names that the checkpoint has for them."""


def as_they_are(config: Hyperparameters, weights: Weights) -> Weights:
    """Tensors that GGUF has as the checkpoint has them."""
    return weights


def no_more(config: Hyperparameters, named: Ids, added: Ids) -> Ids:
    """No special tokens beside those that the tokenizer's files name."""
    return {}


@frozen
class Family:
    """How one family is converted.

    Attributes:
        architecture: its name in GGUF.
        keys: writes its keys with the ``gguf`` package's writer, and returns the tensors that follow from them.
        activations: the only ones of its feed-forward that the family has.
        defaults: what config.json may leave out, as transformers' class has it.
        arranged: cuts, joins and orders tensors as converters do, for what the family's own plugin does not know.
        control: special tokens by their kind in GGUF, beside those that the tokenizer's files name and in their place;
            from the configuration, those, and the ids of added tokens.
        quantised: methods of quantisation that `arranged` reads.
        skipped: beginnings of the names of tensors that are not the text model's.
        head_is_embedding: a head in the files is the embedding once more, and left out.
        layout: whose plugin knows what converters do to tensors: by default the family's own; "" for nothing at all.
    """

    architecture: str
    keys: Callable[[Hyperparameters, Any], Extra]
    activations: tuple[str, ...] = ("silu",)
    defaults: Mapping[str, Any] = field(factory=dict)
    arranged: Callable[[Hyperparameters, Weights], Weights] = as_they_are
    control: Callable[[Hyperparameters, Ids, Ids], Ids] = no_more
    quantised: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    head_is_embedding: bool = False
    layout: str | None = None
