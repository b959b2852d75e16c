"""LLaMA's block with a norm on each query and key head, after it is rotated.

GGUF's base of rope has NTK's factor in it. Source: Tencent Hunyuan Team 2025, published code of Hunyuan-7B-Instruct.
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class HunyuanDense(Architecture[ModelConfig]):
    names = ("hunyuan-dense",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, head_norm=True, norm_first=False)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp)
