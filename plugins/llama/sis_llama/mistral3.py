"""LLaMA's block with queries that grow beyond the original context: Ministral 3 and Mistral Large 3's dense kin.

Source: Mistral AI 2025, "Ministral 3", and its published code.
"""

from attrs import frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, PositionScale
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


@frozen
class Mistral3Config(ModelConfig):
    """``q_scale``: None for no growth."""

    q_scale: PositionScale | None = None


class Mistral3(Architecture[Mistral3Config]):
    names = ("mistral3",)

    def config(self, metadata: Metadata, n_vocab: int) -> Mistral3Config:
        beta = metadata.maybe_number("attention.temperature_scale")
        scale = PositionScale(beta, metadata.integer("rope.scaling.original_context_length")) if beta else None
        return Mistral3Config.read(metadata, n_vocab, q_scale=scale)

    def block(self, config: Mistral3Config, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, q_scale=config.q_scale)
        return pre_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))
