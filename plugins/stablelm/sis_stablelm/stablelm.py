"""LLaMA's block with layer norms, and heads of which a part rotates; in the 12B attention and feed-forward are side by
side after one norm, and query and key heads are normalised with weights for each.

Source: Bellagente et al. 2024, "Stable LM 2 1.6B Technical Report".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import HeadNorm, gated_feed_forward, has_head_norms, pre_norm_block, self_attention
from sis_core.tensors import Tensors


class StableLM(Architecture[ModelConfig]):
    names = ("stablelm",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        metadata.flag("use_parallel_residual", True)  # old files have it wrong; which norms there are says it
        return ModelConfig.read(metadata, n_vocab, norm="layer")

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        norms: HeadNorm = "own" if has_head_norms(i, tensors) else False
        attention = self_attention(config, i, tensors, rope=rope, head_norm=norms)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        one = f"blk.{i}.ffn_norm.weight" not in tensors
        name = "attn_norm" if one else "ffn_norm"
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm=name, parallel=one)
