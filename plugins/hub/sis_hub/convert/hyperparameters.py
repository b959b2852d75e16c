"""What a config.json says of a network, under the names that its many authors gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sis_core.errors import SourceError

FIX = "download the config.json of this model again"


@frozen
class Hyperparameters:
    """A text model's configuration, read with checks.

    Attributes:
        values: of config.json, laid over its family's defaults.
        where: the folder, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def find(self, *names: str) -> Any:
        """The first of these that is there and not null, else None."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), None)

    def integer(self, *names: str) -> int:
        """A positive integer.

        Raises:
            SourceError: there is none under any of these names.
        """
        value = self.find(*names)
        if type(value) is not int or not 0 < value < 2**31:
            raise SourceError(f"{names[0]} is {str(value)[:80]!r}, not a positive integer", where=self.where, fix=FIX)
        return value

    def number(self, *names: str) -> float:
        """A number.

        Raises:
            SourceError: there is none under any of these names.
        """
        value = self.find(*names)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SourceError(f"{names[0]} is {str(value)[:80]!r}, not a number", where=self.where, fix=FIX)
        return float(value)

    @property
    def n_layer(self) -> int:
        """Number of layers."""
        return self.integer("num_hidden_layers", "n_layer", "n_layers", "num_layers")

    @property
    def head_dim(self) -> int:
        """Values of a head."""
        if self.find("head_dim") is not None:
            return self.integer("head_dim")
        return self.integer("hidden_size", "n_embd") // self.integer("num_attention_heads", "n_head")

    @property
    def rope(self) -> Mapping[str, Any]:
        """How positions are rotated in layers that see everything, as ``rope_parameters`` has it today."""
        found = self._rope_parameters()
        whole = found.get("full_attention", found)
        if not isinstance(whole, Mapping):
            return {}
        old = {
            "rope_theta": self.find("rope_theta", "rotary_emb_base"),
            "rope_type": whole.get("type"),
            "partial_rotary_factor": self.find("partial_rotary_factor", "rotary_pct"),
            "original_max_position_embeddings": self.find("original_max_position_embeddings"),
        }
        return {name: value for name, value in old.items() if value is not None} | dict(whole)

    @property
    def rope_theta_window(self) -> float | None:
        """The base of layers with a window, where it is another one."""
        local = self._rope_parameters().get("sliding_attention")
        value = local.get("rope_theta") if isinstance(local, Mapping) else self.find("rope_local_base_freq")
        return None if value is None else float(value)

    def _rope_parameters(self) -> Mapping[str, Any]:
        found = self.find("rope_parameters", "rope_scaling")
        return found if isinstance(found, Mapping) else {}

    def refuse(self, what: str) -> SourceError:
        """An error about this configuration."""
        return SourceError(what, where=self.where, fix="look for a GGUF file of this model")
