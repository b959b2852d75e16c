"""LLaMA's block with norms after attention and feed-forward too, and gate and up in one tensor.

Source: Team GLM 2024, "ChatGLM: A Family of Large Language Models from GLM-130B to GLM-4 All Tools".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Glm4(Architecture[ModelConfig]):
    names = ("glm4",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        mlp = gated_feed_forward(config, i, tensors, "silu", fused=True)
        return pre_norm_block(config, i, tensors, attention, mlp, post_norm=True)
