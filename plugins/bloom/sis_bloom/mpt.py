"""GPT-2's block with ALiBi in place of positions, without biases; queries, keys and values may be limited.

Source: MosaicML NLP Team 2023, "Introducing MPT-7B", and its published code.
"""

from attrs import evolve, frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import alibi_slopes, feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


@frozen
class MPTConfig(ModelConfig):
    """``max_bias``: the last head's slope is 2 to the minus this. ``clamp``: limit of q, k and v; None for none."""

    max_bias: float = 8.0
    clamp: float | None = None


class MPT(Architecture[MPTConfig]):
    names = ("mpt",)

    def config(self, metadata: Metadata, n_vocab: int) -> MPTConfig:
        config = MPTConfig.read(metadata, n_vocab, norm="layer", norm_bias=False, rope=False)
        max_bias, clamp = metadata.number("attention.max_alibi_bias"), metadata.maybe_number("attention.clamp_kqv")
        return evolve(config, max_bias=max_bias, clamp=clamp)

    def block(self, config: MPTConfig, i: int, tensors: Tensors) -> Block:
        slopes = alibi_slopes(config.n_head[i], config.max_bias)  # (n_head,)
        attention = self_attention(config, i, tensors, bias=False, fused=True, alibi=slopes, clamp=config.clamp)
        mlp = feed_forward(config, i, tensors, "gelu", bias=False)
        return pre_norm_block(config, i, tensors, attention, mlp)
