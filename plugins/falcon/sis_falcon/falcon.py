"""Attention and feed-forward side by side, after one layer norm (7B, 11B) or one each (40B, 180B).

Source: Almazrouei et al. 2023, "The Falcon Series of Open Language Models".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Falcon(Architecture[ModelConfig]):
    names = ("falcon",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, norm="layer")

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, bias=False, fused=True)
        mlp = feed_forward(config, i, tensors, "gelu", bias=False)
        own = "attn_norm_2" if f"blk.{i}.attn_norm_2.weight" in tensors else "attn_norm"
        return pre_norm_block(config, i, tensors, attention, mlp, attn_norm=own, mlp_norm="attn_norm", parallel=True)
