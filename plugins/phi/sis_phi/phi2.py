"""Attention and feed-forward side by side after one layer norm, biases everywhere, and heads of which a part rotates.

Source: Li et al. 2023, "Textbooks Are All You Need II: phi-1.5"; Javaheripi et al. 2023, "Phi-2".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Phi2(Architecture[ModelConfig]):
    names = ("phi2",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, norm="layer")

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, bias=True)
        mlp = feed_forward(config, i, tensors, "gelu_tanh", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="attn_norm", parallel=True)
