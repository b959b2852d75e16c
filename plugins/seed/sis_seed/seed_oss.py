"""LLaMA's block with biases on q, k and v; GGUF calls the second norm by another name.

Source: ByteDance Seed Team 2025, "Seed-OSS Open-Source Models".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class SeedOss(Architecture[ModelConfig]):
    names = ("seed_oss",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="post_attention_norm")
