"""Model families: how metadata and tensors become a network.

A family is data. It reads keys and takes tensors through `Metadata` and `Tensors`, which remember what was used, and
returns records of `sis_core.block`. What a file has and a family does not use is a feature that it does not implement,
so the file is refused instead of being half run.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import evolve, frozen

from sis_core.block import Block, Embedding, Head, Network
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.tensors import Tensors, gguf_names


@frozen
class ModelConfig:
    """Sizes of a model, in GGUF's terms. A family may subclass it with keys of its own.

    Attributes:
        n_ctx_train: tokens the model was trained to see at once.
        n_ctx: tokens it is set up for now; at most ``n_ctx_train`` unless the user asks for more.
        n_head, n_head_kv, n_ff: one value for each layer.
        head_dim: values of one query or key head.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    n_ctx: int
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    n_ff: tuple[int, ...]
    head_dim: int
    norm_eps: float
    rope_theta: float = 10000.0


class Architecture(ABC):
    """One model family.

    Attributes:
        names: the values of ``general.architecture`` it answers to.
    """

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        """Read every key that matters; ``n_vocab`` is the number of rows of the token embedding."""

    @abstractmethod
    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding: ...

    @abstractmethod
    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        """Layer ``i``, from 0."""

    @abstractmethod
    def head(self, config: ModelConfig, tensors: Tensors) -> Head: ...


def common_config(
    metadata: Metadata,
    n_vocab: int,
    *,
    eps_key: str = "attention.layer_norm_rms_epsilon",
    rope: bool = True,
    eps: float = 1e-5,
) -> dict[str, Any]:
    """The keys that nearly every family has, checked, as arguments for `ModelConfig`."""
    n_layer = metadata.integer("block_count", maximum=10_000)
    n_embd = metadata.integer("embedding_length", maximum=1 << 20)
    n_ctx = metadata.integer("context_length", maximum=1 << 30)
    n_head = metadata.per_layer("attention.head_count", n_layer)
    n_head_kv = metadata.per_layer("attention.head_count_kv", n_layer, n_head)
    n_ff = metadata.per_layer("feed_forward_length", n_layer, 4 * n_embd)
    for i, (heads, kv_heads) in enumerate(zip(n_head, n_head_kv, strict=True)):
        if heads % kv_heads:
            raise ModelError(
                f"layer {i} has {heads} heads, which {kv_heads} key heads do not divide", where=metadata.where
            )
    has_key_length = "attention.key_length" in metadata
    if not has_key_length and n_embd % n_head[0]:
        raise ModelError(
            f"embedding_length {n_embd} is not a multiple of attention.head_count {n_head[0]}, and there is no "
            f"{metadata.architecture}.attention.key_length",
            where=metadata.where,
        )
    head_dim = metadata.integer("attention.key_length", maximum=1 << 16) if has_key_length else n_embd // n_head[0]
    v_dim = metadata.integer("attention.value_length") if "attention.value_length" in metadata else head_dim
    if v_dim != head_dim:
        raise ModelError(
            f"value heads of {v_dim} beside key heads of {head_dim} are not supported", where=metadata.where
        )
    return {
        "architecture": metadata.architecture,
        "n_layer": n_layer,
        "n_embd": n_embd,
        "n_vocab": n_vocab,
        "n_ctx_train": n_ctx,
        "n_ctx": n_ctx,
        "n_head": n_head,
        "n_head_kv": n_head_kv,
        "n_ff": n_ff,
        "head_dim": head_dim,
        "norm_eps": metadata.number(eps_key, eps),
        "rope_theta": metadata.number("rope.freq_base", 10000.0) if rope else 10000.0,
    }


def rope_dimensions(metadata: Metadata, head_dim: int, default: int | None = None) -> int:
    """``rope.dimension_count``: even and at most the head size; by default the whole head."""
    n_rot = metadata.integer("rope.dimension_count", head_dim if default is None else default)
    if n_rot % 2 or n_rot > head_dim:
        raise ModelError(
            f"{metadata.architecture}.rope.dimension_count is {n_rot}, but must be even and at most the head size {head_dim}",
            where=metadata.where,
        )
    return n_rot


def build_network(
    architecture: Architecture,
    values: Mapping[str, Any],
    weights: Mapping[str, Weight],
    *,
    name: str,
    where: str = "",
    n_ctx: int | None = None,
    degrade: bool = False,
) -> tuple[ModelConfig, Network, Tensors]:
    """Run a family over a file.

    Args:
        architecture: the family that answers to ``name``.
        values: all metadata of the file.
        weights: all tensors of the file under the file's names.
        n_ctx: tokens to set the model up for; by default what it was trained for.

    Raises:
        ModelError: a key or tensor is missing, contradicts another, or is one that the family does not use.
    """
    metadata = Metadata(values, name, where)
    n_layer = metadata.integer("block_count", maximum=10_000)
    tensors = Tensors(gguf_names(weights, name, n_layer), where, degrade=degrade)
    table = tensors.get("token_embd.weight")
    if table is None:
        raise ModelError(
            "tensor token_embd.weight is missing", where=where, fix="convert the model again from its original"
        )
    n_tokens = len(values["tokenizer.ggml.tokens"]) if "tokenizer.ggml.tokens" in values else table.n_rows
    if n_tokens > table.n_rows:
        raise ModelError(
            f"the vocabulary has {n_tokens} tokens, but token_embd.weight has {table.n_rows} rows", where=where
        )
    config = architecture.config(metadata, table.n_rows)
    if n_ctx is not None:
        config = evolve(config, n_ctx=n_ctx)
    missing = [i for i in range(config.n_layer) if not tensors.has_layer(i)]
    if missing and not degrade:
        raise ModelError(
            f"{name}.block_count is {config.n_layer}, but there are no tensors for layer {missing[0]}", where=where
        )
    network = Network(
        n_embd=config.n_embd,
        n_vocab=config.n_vocab,
        n_ctx=config.n_ctx,
        embedding=architecture.embedding(config, tensors),
        blocks=tuple(architecture.block(config, i, tensors) for i in range(config.n_layer)),
        head=architecture.head(config, tensors),
    )
    _refuse_leftovers(metadata, tensors, where)
    return config, network, tensors


def _refuse_leftovers(metadata: Metadata, tensors: Tensors, where: str) -> None:
    keys, names = metadata.unread(), tensors.unread()
    if keys:
        raise ModelError(
            f"the family {metadata.architecture} as installed does not implement what {_some(keys)} asks for",
            where=where,
            fix="install a plugin for this kind of model, or a newer version of the one you have",
        )
    if names:
        raise ModelError(
            f"the family {metadata.architecture} as installed has no use for tensor {_some(names)}, so it would run a "
            "different model",
            where=where,
            fix="install a plugin for this kind of model, or a newer version of the one you have",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def suggest(name: str, known: list[str]) -> str:
    """`` (did you mean …?)`` when something installed is spelt nearly so, else nothing."""
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
