"""Model families: how metadata and tensors become a network.

A family is data. It reads keys and takes tensors through `Metadata` and `Tensors`, which remember what was used, and
returns records of `sis_core.block`. What a file has and a family does not use is a feature that it does not implement,
so the file is refused instead of being half run.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from attrs import evolve, frozen

from sis_core.block import Block, Embedding, Head, Network
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.rope import RopeConfig
from sis_core.tensors import Tensors, derived, gguf_names

MAX_LAYERS = 10_000
NOT_IMPLEMENTED = "install a plugin for this kind of model, or a newer version of the one you have"


@frozen
class ModelConfig:
    """Sizes of a model, in GGUF's terms. A family may subclass it with fields of its own.

    Attributes:
        n_ctx_train: tokens the model was trained to see at once.
        n_ctx: tokens it is set up for now; at most ``n_ctx_train`` unless the user asks for more.
        n_head, n_head_kv, n_ff: one value for each layer.
        head_dim: values of one query, key or value head.
        rope: how heads are rotated, or None where positions are learned.
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
    rope: RopeConfig | None = None

    @classmethod
    def read(
        cls,
        metadata: Metadata,
        n_vocab: int,
        *,
        eps_key: str = "attention.layer_norm_rms_epsilon",
        eps: float = 1e-5,
        rope: bool = True,
        **own: Any,
    ) -> Self:
        """The keys that nearly every family has, checked. ``own`` are the values of a subclass's fields.

        Args:
            eps_key: the key of the norm that the family has: rms or layer.
            eps: what to use (and log) where the file has no such key.
            rope: whether the family rotates its heads.

        Raises:
            ModelError: a key is missing, of a wrong type, out of range, or contradicts another.
        """
        n_layer = metadata.integer("block_count", maximum=MAX_LAYERS)
        n_embd = metadata.integer("embedding_length", maximum=1 << 20)
        n_ctx = metadata.integer("context_length", maximum=1 << 30)
        n_head = metadata.per_layer("attention.head_count", n_layer)
        n_head_kv = metadata.per_layer("attention.head_count_kv", n_layer, n_head)
        head_dim = _head_dim(metadata, n_embd, n_head, n_head_kv)
        if "attention.causal" in metadata and not metadata.flag("attention.causal"):
            raise ModelError(
                f"the key {metadata.architecture}.attention.causal is false: this model does not continue text",
                where=metadata.where,
                fix="choose a model for text generation",
            )
        return cls(
            architecture=metadata.architecture,
            n_layer=n_layer,
            n_embd=n_embd,
            n_vocab=n_vocab,
            n_ctx_train=n_ctx,
            n_ctx=n_ctx,
            n_head=n_head,
            n_head_kv=n_head_kv,
            n_ff=metadata.per_layer("feed_forward_length", n_layer, 4 * n_embd),
            head_dim=head_dim,
            norm_eps=metadata.number(eps_key, eps),
            rope=RopeConfig.read(metadata, head_dim, n_ctx) if rope else None,
            **own,
        )


def _head_dim(metadata: Metadata, n_embd: int, n_head: tuple[int, ...], n_head_kv: tuple[int, ...]) -> int:
    name = metadata.architecture
    for i, (heads, kv_heads) in enumerate(zip(n_head, n_head_kv, strict=True)):
        if heads % kv_heads:
            raise ModelError(
                f"layer {i} has {heads} query heads, which is not a multiple of its {kv_heads} key heads "
                f"({name}.attention.head_count, {name}.attention.head_count_kv)",
                where=metadata.where,
                fix="convert the model again from its original",
            )
    key_length = metadata.maybe_integer("attention.key_length", maximum=1 << 16)
    if key_length is None and n_embd % n_head[0]:
        raise ModelError(
            f"the key {name}.embedding_length is {n_embd}, not a multiple of {name}.attention.head_count {n_head[0]}, "
            f"and there is no {name}.attention.key_length",
            where=metadata.where,
            fix="convert the model again from its original",
        )
    head_dim = key_length or n_embd // n_head[0]
    v_dim = metadata.maybe_integer("attention.value_length", maximum=1 << 16) or head_dim
    if v_dim != head_dim:
        raise ModelError(
            f"{name}.attention.value_length is {v_dim} and the key heads have {head_dim} values, which no installed "
            "family implements",
            where=metadata.where,
            fix=NOT_IMPLEMENTED,
        )
    return head_dim


class Architecture(ABC):
    """One model family.

    Attributes:
        names: the values of ``general.architecture`` it answers to; GGUF's own name first.
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

    def from_hugging_face(self, config: ModelConfig, role: str, weight: Weight) -> Weight:
        """A tensor laid out as GGUF has it, of a file that names it as Hugging Face does.

        Converters reorder rows, transpose, or add 1 to norms; a file that kept the names kept the layout too. A family
        that overrides this undoes its own cases and returns every other weight as it is.

        Args:
            role: GGUF's name of the tensor; ``weight.name`` is the file's.
        """
        raise ModelError(
            f"tensor {weight.name} is not called {role}: the family {config.architecture} reads GGUF's names only",
            fix="convert the model with a tool that writes GGUF's tensor names",
        )


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
    n_layer = metadata.integer("block_count", maximum=MAX_LAYERS)
    roles = gguf_names(weights, architecture.names[0], n_layer, where)
    config = architecture.config(metadata, _n_vocab(roles, values, where))
    _refuse_keys(metadata)
    metadata.report_defaults()
    if n_ctx is not None:
        config = evolve(config, n_ctx=n_ctx)
    tensors = Tensors(_as_gguf(architecture, config, roles, where), where, degrade=degrade)
    missing = [i for i in range(config.n_layer) if not tensors.has_layer(i)]
    if missing and not degrade:
        raise ModelError(
            f"the key {name}.block_count is {config.n_layer}, but there are no tensors for layer {missing[0]}",
            where=where,
            fix="download the file again, or convert the model again from its original",
        )
    network = Network(
        n_embd=config.n_embd,
        n_vocab=config.n_vocab,
        n_ctx=config.n_ctx,
        embedding=architecture.embedding(config, tensors),
        blocks=tuple(architecture.block(config, i, tensors) for i in range(config.n_layer)),
        head=architecture.head(config, tensors),
    )
    _refuse_tensors(tensors, name)
    return config, network, tensors


def _n_vocab(roles: Mapping[str, Weight], values: Mapping[str, Any], where: str) -> int:
    """Rows of the token embedding, which must be as many as the file has tokens.

    A row without a token would have a logit, and a sampler could choose an id that has no text. Converters add tokens
    where a model's embedding is padded, and llama.cpp refuses other files too.
    """
    table = roles.get("token_embd.weight")
    if table is None:
        raise ModelError(
            "tensor token_embd.weight is missing", where=where, fix="convert the model again from its original"
        )
    if len(table.shape) != 2:
        raise ModelError(
            f"tensor token_embd.weight has shape {table.shape}, not (n_vocab, n_embd)",
            where=where,
            fix="convert the model again from its original",
        )
    tokens = values.get("tokenizer.ggml.tokens")
    if tokens is not None and (isinstance(tokens, str) or not isinstance(tokens, Sequence)):
        raise ModelError(
            "the key tokenizer.ggml.tokens must be an array of strings",
            where=where,
            fix="convert the model again from its original",
        )
    if tokens is not None and len(tokens) != table.n_rows:
        raise ModelError(
            f"tokenizer.ggml.tokens has {len(tokens)} tokens, but token_embd.weight has {table.n_rows} rows",
            where=where,
            fix="convert the model again from its original, with the vocabulary padded to the embedding",
        )
    return table.n_rows


def _as_gguf(
    architecture: Architecture, config: ModelConfig, roles: Mapping[str, Weight], where: str
) -> dict[str, Weight]:
    """The tensors with those under foreign names laid out as GGUF has them."""
    try:
        return {
            role: weight
            if weight.name == role or derived(weight.name)
            else architecture.from_hugging_face(config, role, weight)
            for role, weight in roles.items()
        }
    except ModelError as error:
        raise ModelError(error.what, where=error.where or where, fix=error.fix) from None


def _refuse_keys(metadata: Metadata) -> None:
    if keys := metadata.unread():
        raise ModelError(
            f"the family {metadata.architecture} as installed does not implement what the key {_some(keys)} asks for",
            where=metadata.where,
            fix=NOT_IMPLEMENTED,
        )


def _refuse_tensors(tensors: Tensors, name: str) -> None:
    if names := tensors.unread():
        raise ModelError(
            f"the family {name} as installed has no use for tensor {_some(names)}, so it would run a different model",
            where=tensors.where,
            fix=NOT_IMPLEMENTED,
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def suggest(name: str, known: list[str]) -> str:
    """`` (did you mean …?)`` when something installed is spelt nearly so, else nothing."""
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
