"""Typed, checked reading of a file's metadata. What is read is remembered, so that what nobody reads can be refused.

Keys are given relative to the architecture (``attention.head_count``). Beside GGUF's own spelling, those of Hugging
Face configurations and of GPT-NeoX's are understood.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
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
    "attention.sliding_window_pattern": ("sliding_window_pattern",),
    "attn_logit_softcapping": ("attention.logit_softcapping",),
    "rope.freq_base": ("rope_theta", "rotary_emb_base", "rope.global.freq_base"),
    "rope.freq_base_swa": ("rope_local_base_freq", "rope.local.freq_base"),
    "rope.dimension_count": ("rotary_dim", "rope_dim"),
    "rope.dimension_fraction": ("rotary_pct", "partial_rotary_factor"),
    "rope.scaling.factor": ("rope.scale_linear",),
    "rope.scaling.yarn_beta_fast": ("rope.scaling.beta_fast",),
    "rope.scaling.yarn_beta_slow": ("rope.scaling.beta_slow",),
    "use_parallel_residual": ("parallel_residual", "gpt_j_residual"),
}
"""Other spellings of a key, with or without the architecture before them."""

HARMLESS = (
    "vocab_size",  # the number of rows of the embedding says it
    "tensor_data_layout",
    "source",
    "name",
    "description",
    "rope.scaling.finetuned",
    "pooling_type",  # what an embedding server does with hidden states
    "attention.layer_norm_epsilon",  # converters write both; a family reads the one of the norm that it has
    "attention.layer_norm_rms_epsilon",
)
"""Keys that change no number here, read or not."""

TOWERS = ("vision.", "audio.", "mm.")
"""How keys begin of what sees or hears, in files that have it beside their language model: no text needs them."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_parallel_residual": (True,),  # a converter of early 2024 wrote it for all; who has a choice reads it
    "logit_scale": (1.0,),
    "embedding_scale": (1.0,),
    "residual_scale": (1.0,),
    "expert_weights_scale": (1.0,),  # of models without experts
    "rope.scaling.factor": (1.0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.type": ("none",),
    "rope.freq_scale": (1.0,),  # files of 2023
    "rope.scale": (1.0,),
    "attention.causal": (True,),
    "tensor_parallel_size": (1,),
    "pipeline_parallel_size": (1,),
}
"""Values of a key that ask for nothing: what every family does anyway. Such a key need not be read."""

QUIET = frozenset({
    "attention.head_count_kv",  # as many as query heads
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "feed_forward_length",
    "rope.dimension_count",  # the whole head
    "rope.freq_base_swa",
    "rope.scaling.attn_factor",
    "use_parallel_residual",
})  # fmt: skip
"""Keys that converters leave out where the usual value holds. Using it is no news."""
LONG_CONTEXT = 8192  # a model trained for more than this seldom rotates with the first LLaMA's base

_REQUIRED: Any = object()


class Metadata:
    """The part of a file's metadata that describes the network.

    Args:
        values: all keys of the file.
        architecture: the prefix of the keys of interest.
        where: the file, for messages.
        ignored: keys that the user wants passed over where nobody reads them.
    """

    def __init__(
        self, values: Mapping[str, Any], architecture: str, where: str = "", ignored: Collection[str] = ()
    ) -> None:
        self.values, self.architecture, self.where, self.ignored = values, architecture, where, frozenset(ignored)
        self._read: set[str] = set()
        self.defaulted: dict[str, Any] = {}

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def integer(self, key: str, default: Any = _REQUIRED, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
        """An integer within bounds; a missing key is `default` (logged) or a ModelError."""
        value = self._get(key, default)
        if not _is_integer(value):
            raise self._wrong(key, f"must be an integer, not {_describe(value)}")
        if not minimum <= value <= maximum:
            raise self._wrong(key, f"is {value}, but must be from {minimum} to {maximum}")
        return int(value)

    def number(self, key: str, default: Any = _REQUIRED, *, above: float = 0.0, below: float = math.inf) -> float:
        """A finite number with ``above < value < below``."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, f"must be a number, not {_describe(value)}")
        if not (math.isfinite(value) and above < value < below):
            bounds = f"above {above:g}" + (f" and below {below:g}" if below < math.inf else "")
            raise self._wrong(key, f"is {value}, but must be {bounds}")
        return float(value)

    def maybe_number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float | None:
        """A finite number above a bound, or None where the file has a 0, which is GGUF's way to say off.

        A missing key is ``default`` (logged), or None.
        """
        return None if self._is_off(key, default) else self.number(key, default, above=above)

    def maybe_integer(self, key: str, default: int | None = None, *, maximum: int = 2**31 - 1) -> int | None:
        """An integer from 1 on, or None where the file has a 0; a missing key is ``default`` (logged), or None."""
        return None if self._is_off(key, default) else self.integer(key, default, maximum=maximum)

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
        if isinstance(value, Sequence) and not isinstance(value, str):
            items = self._items(key, value, n_layer)
            for i, item in enumerate(items):
                if not _is_integer(item) or not minimum <= item < 2**31:
                    what = f"is {_describe(item)} for layer {i}, but must be an integer of at least {minimum}"
                    raise self._wrong(key, what)
            return items
        return (self.integer(key, default, minimum=minimum),) * n_layer

    def pattern(self, key: str, n_layer: int, period: int) -> tuple[bool, ...]:
        """One true or false for each layer: as the file lists them, or true for all but every ``period``-th layer.

        The file may give another period as an integer; 0 makes every layer true, as in llama.cpp.
        """
        value = self._get(key, period)
        if isinstance(value, Sequence) and not isinstance(value, str):
            items = self._items(key, value, n_layer)
            for i, item in enumerate(items):
                if item not in (0, 1):
                    raise self._wrong(key, f"is {_describe(item)} for layer {i}, but must be true or false")
            return tuple(bool(item) for item in items)
        every = self.integer(key, period, minimum=0)
        return tuple(every == 0 or i % every != every - 1 for i in range(n_layer))

    def windows(self, n_layer: int, period: int) -> tuple[int | None, ...]:
        """For each layer the tokens that it sees, itself included; None for all before it.

        Those for which `pattern` is true see the file's ``attention.sliding_window``, where it has one.
        """
        window = self.maybe_integer("attention.sliding_window")
        if window is None:
            self.ignore("attention.sliding_window_pattern", "rope.freq_base_swa")
            return (None,) * n_layer
        near = self.pattern("attention.sliding_window_pattern", n_layer, period)
        return tuple(window if is_near else None for is_near in near)

    def ignore(self, *keys: str) -> None:
        """Mark keys as understood although they change nothing here."""
        for key in keys:
            self._find(key)

    def unread(self) -> list[str]:
        """Keys of this architecture that nobody asked for and that may change the result, in file order.

        A value of 0, false or "" is GGUF's way to say that a feature is off; see also `NEUTRAL`.
        """
        return [key for key in self._unread() if not self._is_ignored(key)]

    def passed_over(self) -> list[str]:
        """Keys that `unread` leaves out because the user said so."""
        return [key for key in self._unread() if self._is_ignored(key)]

    def _is_ignored(self, key: str) -> bool:
        return key in self.ignored or key.removeprefix(f"{self.architecture}.") in self.ignored

    def _unread(self) -> list[str]:
        prefix = self.architecture + "."
        return [
            key
            for key, value in self.values.items()
            if key.startswith(prefix)
            and key not in self._read
            and key.removeprefix(prefix) not in HARMLESS
            and not key.removeprefix(prefix).startswith(TOWERS)
            and not _is_off(value)
            and not _is_neutral(key.removeprefix(prefix), value)
        ]

    def _is_off(self, key: str, default: Any) -> bool:
        found = self._find(key)
        return default is None if found is None else _is_off(self.values[found])

    def _items(self, key: str, value: Sequence[Any], n_layer: int) -> tuple[Any, ...]:
        if len(value) != n_layer:
            raise self._wrong(key, f"has {len(value)} values for {n_layer} layers")
        return tuple(value)

    def _find(self, key: str) -> str | None:
        others = ALIASES.get(key, ())
        spellings = [f"{self.architecture}.{name}" for name in (key, *others)] + list(others)
        present = [name for name in spellings if name in self.values]
        self._read.update(present)
        if not present:
            return None
        first = self.values[present[0]]
        for name in present[1:]:
            if self.values[name] != first:
                raise ModelError(
                    f"the keys {present[0]} ({_describe(first)}) and {name} ({_describe(self.values[name])}) "
                    "mean the same and differ",
                    where=self.where,
                    fix="convert the model again from its original",
                )
        return present[0]

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
        self.defaulted[key] = default
        return default

    def report_defaults(self) -> None:
        """Name the keys that the file lacks and the values used instead: a warning where that is suspicious.

        Nothing is said of a switch left off, and only to those who ask (`-v`) of keys that converters leave out.
        """
        missing = {key: value for key, value in self.defaulted.items() if value}
        for level, keys in (
            (logging.WARNING, [key for key in missing if not self._is_usual(key)]),
            (logging.INFO, [key for key in missing if self._is_usual(key)]),
        ):
            if keys:
                used = ", ".join(f"{self.architecture}.{key}={_short(missing[key])}" for key in keys)
                log.log(level, "%s: missing keys, with what is used instead: %s", self.where, used)

    def _is_usual(self, key: str) -> bool:
        if key == "rope.freq_base":
            found = self._find("context_length")
            return found is None or not self.values[found] > LONG_CONTEXT
        return key in QUIET

    def _wrong(self, key: str, what: str) -> ModelError:
        name = self._find(key) or f"{self.architecture}.{key}"
        return ModelError(f"the key {name} {what}", where=self.where, fix="convert the model again from its original")


def _short(value: Any) -> str:
    """A default in few letters: one for each layer is shown once when all are the same."""
    same = isinstance(value, tuple) and len(set(value)) == 1
    return str(value[0] if same else value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_off(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) and not value


def _is_neutral(key: str, value: Any) -> bool:
    return any(type(value) is type(usual) and value == usual for usual in NEUTRAL.get(key, ()))


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    if isinstance(value, bool | int | float):
        return repr(value)
    return f"an array of {len(value)}" if isinstance(value, Sequence) else type(value).__name__
