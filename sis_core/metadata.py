"""Typed, checked reading of a file's metadata. What is read is remembered, so that what nobody reads can be refused.

Keys are given relative to the architecture (``attention.head_count``). Beside GGUF's own spelling, those of Hugging
Face configurations and of the first GPT-NeoX converters are understood.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sis_core.errors import ModelError

log = logging.getLogger(__name__)

ALIASES: dict[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers", "n_layer", "num_layers"),
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_dim"),
    "attention.head_count": ("num_attention_heads", "n_head", "num_heads"),
    "attention.head_count_kv": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "rms_norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "rope.freq_base": ("rope_theta", "rotary_emb_base"),
    "rope.dimension_count": ("rotary_dim", "rope_dim"),
    "use_parallel_residual": ("parallel_residual",),
}
HARMLESS = ("vocab_size", "tensor_data_layout", "source", "name", "description", "rope.scaling.finetuned")
_REQUIRED: Any = object()


class Metadata:
    """The part of a file's metadata that describes the network.

    Args:
        values: all keys of the file.
        architecture: the prefix of the keys of interest.
        where: the file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], architecture: str, where: str = "") -> None:
        self.values, self.architecture, self.where = values, architecture, where
        self._read: set[str] = set()
        self.defaulted: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def integer(self, key: str, default: Any = _REQUIRED, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
        """An integer within bounds; a missing key is `default` (logged) or a ModelError."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, f"must be an integer, not {_describe(value)}")
        if not minimum <= value <= maximum:
            raise self._wrong(key, f"is {value}, but must be from {minimum} to {maximum}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, above: float = 0.0, below: float = math.inf) -> float:
        """A finite number with ``above < value < below``."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, f"must be a number, not {_describe(value)}")
        if not (math.isfinite(value) and above < value < below):
            bounds = f"above {above:g}" + (f" and below {below:g}" if below < math.inf else "")
            raise self._wrong(key, f"is {value}, but must be {bounds}")
        return float(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """A true or false value."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, f"must be true or false, not {_describe(value)}")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, f"must be a string, not {_describe(value)}")
        return value

    def per_layer(self, key: str, n_layer: int, default: Any = _REQUIRED, *, minimum: int = 1) -> tuple[int, ...]:
        """One integer for each layer; a single value in the file stands for all of them."""
        value = self._get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            value = (value,) * n_layer
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(key, f"must be an integer or one for each layer, not {_describe(value)}")
        if len(value) != n_layer:
            raise self._wrong(key, f"has {len(value)} values for {n_layer} layers")
        items = tuple(value)
        for i, item in enumerate(items):
            if isinstance(item, bool) or not isinstance(item, int) or not minimum <= item < 2**31:
                raise self._wrong(
                    key, f"is {_describe(item)} for layer {i}, but must be an integer of at least {minimum}"
                )
        return items

    def flags_per_layer(self, key: str, n_layer: int, default: Any = _REQUIRED) -> tuple[bool, ...]:
        """One true or false for each layer."""
        value = self._get(key, default)
        if isinstance(value, str | int) or not isinstance(value, Sequence) or len(value) != n_layer:
            raise self._wrong(key, f"must be true or false for each of {n_layer} layers, not {_describe(value)}")
        return tuple(bool(item) for item in value)

    def ignore(self, *keys: str) -> None:
        """Mark keys as understood although they change nothing here."""
        for key in keys:
            self._find(key)

    def unread(self) -> list[str]:
        """Keys of this architecture that nobody asked for and that may change the result, in file order."""
        prefix = self.architecture + "."
        return [
            key
            for key, value in self.values.items()
            if key.startswith(prefix)
            and key not in self._read
            and key.removeprefix(prefix) not in HARMLESS
            and not _is_off(value)
        ]

    def _find(self, key: str) -> str | None:
        spellings = [f"{self.architecture}.{name}" for name in (key, *ALIASES.get(key, ()))] + list(
            ALIASES.get(key, ())
        )
        present = [name for name in spellings if name in self.values]
        self._read.update(present)
        return present[0] if present else None

    def _get(self, key: str, default: Any) -> Any:
        name = self._find(key)
        if name is not None:
            return self.values[name]
        if default is _REQUIRED:
            raise ModelError(
                f"the key {self.architecture}.{key} is missing",
                where=self.where,
                fix="convert the model again from its original",
            )
        if default is not None and self.defaulted.get(key, _REQUIRED) != default:
            self.defaulted[key] = default
            log.warning("%s: no key %s.%s; using %s", self.where, self.architecture, key, default)
        return default

    def _wrong(self, key: str, what: str) -> ModelError:
        name = self._find(key) or f"{self.architecture}.{key}"
        return ModelError(f"the key {name} {what}", where=self.where, fix="convert the model again from its original")


def _is_off(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) and not value


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    if isinstance(value, bool | int | float):
        return repr(value)
    return f"an array of {len(value)}" if isinstance(value, Sequence) else type(value).__name__
