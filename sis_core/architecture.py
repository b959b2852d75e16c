"""Model families: how metadata and tensors become a network.

A family is data. It reads keys and takes tensors through `Metadata` and `Tensors`, which remember what was used, and
returns records of `sis_core.block`. What a file has and a family does not use is a feature that it does not implement,
so the file is refused instead of being half run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from attrs import frozen

from sis_core.block import Block, Embedding, Head, NormKind, Rope
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.parts import output_head, token_embedding
from sis_core.quant import Weight
from sis_core.rope import RopeConfig
from sis_core.tensors import Tensors

MAX_LAYERS = 10_000
EPS_KEYS: dict[NormKind, str] = {
    "rms": "attention.layer_norm_rms_epsilon",
    "layer": "attention.layer_norm_epsilon",
}
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
        norm, norm_bias: of rows, and whether layer norms have a bias.
        windows: for each layer the tokens that it sees, itself included; None for all before it. Empty where all do.
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
    norm: NormKind = "rms"
    norm_bias: bool = True
    windows: tuple[int | None, ...] = ()

    def rotation(self, tensors: Tensors, style: Literal["norm", "neox"]) -> Rope:
        """How the heads of a layer are rotated; for families that read their config with ``rope=True``."""
        if self.rope is None:
            raise ValueError(f"the family {self.architecture} reads its config without rope, and asks for it")
        return self.rope.rope(tensors, style, self.n_ctx)

    @classmethod
    def read(
        cls,
        metadata: Metadata,
        n_vocab: int,
        *,
        norm: NormKind = "rms",
        eps: float = 1e-5,
        rope: bool = True,
        period: int | None = None,
        **own: Any,
    ) -> Self:
        """The keys that nearly every family has, checked. ``own`` are the values of a subclass's fields.

        Args:
            norm: the kind that the family has; it says which key has the epsilon.
            eps: what to use (and log) where the file has no such key.
            rope: whether the family rotates its heads.
            period: of the layers without a window among those with one, where a file does not say it; 0 where none is
                without, None where the family knows no windows. See `Metadata.windows`.

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
        rotation = RopeConfig.read(metadata, head_dim, n_ctx) if rope else None
        return cls(
            architecture=metadata.architecture,
            n_layer=n_layer,
            n_embd=n_embd,
            n_vocab=n_vocab,
            n_ctx_train=n_ctx,
            n_ctx=n_ctx if rotation is None else rotation.n_ctx_default(n_ctx),
            n_head=n_head,
            n_head_kv=n_head_kv,
            n_ff=metadata.per_layer("feed_forward_length", n_layer, 4 * n_embd),
            head_dim=head_dim,
            norm_eps=metadata.number(EPS_KEYS[norm], eps),
            rope=rotation,
            norm=norm,
            windows=() if period is None else metadata.windows(n_layer, period),
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


C = TypeVar("C", bound=ModelConfig)


class Architecture(ABC, Generic[C]):
    """One model family, and the class of its config: ``class Mine(Architecture[ModelConfig])``.

    Attributes:
        names: the values of ``general.architecture`` it answers to; GGUF's own name first.
    """

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def config(self, metadata: Metadata, n_vocab: int) -> C:
        """Read every key that matters; ``n_vocab`` is the number of rows of the token embedding."""

    def embedding(self, config: C, tensors: Tensors) -> Embedding:
        """By default the rows of ``token_embd.weight`` as they are."""
        return token_embedding(config, tensors)

    @abstractmethod
    def block(self, config: C, i: int, tensors: Tensors) -> Block:
        """Layer ``i``, from 0."""

    def head(self, config: C, tensors: Tensors) -> Head:
        """By default an RMS norm, then ``output.weight`` or, where there is none, the token embedding again."""
        return output_head(config, tensors)

    def from_hugging_face(self, config: C, role: str, weight: Weight) -> Weight:
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
