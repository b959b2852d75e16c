"""Attention and feed-forward side by side after one layer norm without bias, and a factor on logits.

Command R+ has norms of query and key heads, each with weights of its own; Command R7B (``cohere2``) has windows in
three of four layers, and no positions in the fourth.

Source: Cohere 2025, "Command A: An Enterprise-Ready Large Language Model".
"""

from typing import ClassVar

from attrs import evolve, frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Head
from sis_core.metadata import Metadata
from sis_core.parts import HeadNorm, gated_feed_forward, has_head_norms, output_head, pre_norm_block, self_attention
from sis_core.tensors import Tensors


@frozen
class CohereConfig(ModelConfig):
    """``logit_scale``: a factor on logits."""

    logit_scale: float = 1.0


class CommandR(Architecture[CohereConfig]):
    names = ("command-r",)
    period: ClassVar[int | None] = None

    def config(self, metadata: Metadata, n_vocab: int) -> CohereConfig:
        config = CohereConfig.read(metadata, n_vocab, norm="layer", norm_bias=False, period=self.period)
        return evolve(config, logit_scale=metadata.number("logit_scale"))

    def block(self, config: CohereConfig, i: int, tensors: Tensors) -> Block:
        rotates = not any(config.windows) or config.windows[i] is not None
        rope = config.rotation(tensors, "norm") if rotates else None  # (n_rot // 2,)
        norms: HeadNorm = "own" if has_head_norms(i, tensors) else False
        attention = self_attention(config, i, tensors, rope=rope, head_norm=norms)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="attn_norm", parallel=True)

    def head(self, config: CohereConfig, tensors: Tensors) -> Head:
        return output_head(config, tensors, scale=config.logit_scale)


class Cohere2(CommandR):
    names = ("cohere2",)
    period = 4
