"""LLaMA's block.

Source: Baidu ERNIE Team 2025, "ERNIE 4.5 Technical Report".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Ernie45(Architecture[ModelConfig]):
    names = ("ernie4_5",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp)
