"""Attention and feed-forward side by side after one layer norm without bias, and a factor on logits.

Command R+ has norms of query and key heads, each with weights of its own; Command R7B (``cohere2``) has windows in
three of four layers, and no positions in the fourth.

Source: Cohere 2025, "Command A: An Enterprise-Ready Large Language Model".
"""

from attrs import frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Head
from sis_core.metadata import Metadata
from sis_core.parts import HeadNorm, gated_feed_forward, has_head_norms, output_head, pre_norm_block, self_attention
from sis_core.tensors import Tensors

EPS = "attention.layer_norm_epsilon"


@frozen
class CohereConfig(ModelConfig):
    """``windows``: for each layer the tokens that it sees, itself included; None for all before it."""

    windows: tuple[int | None, ...] = ()
    logit_scale: float = 1.0


class CommandR(Architecture[CohereConfig]):
    names = ("command-r",)

    def config(self, metadata: Metadata, n_vocab: int) -> CohereConfig:
        windows = (None,) * metadata.integer("block_count")
        scale = metadata.number("logit_scale")
        return CohereConfig.read(metadata, n_vocab, eps_key=EPS, windows=windows, logit_scale=scale)

    def block(self, config: CohereConfig, i: int, tensors: Tensors) -> Block:
        window = config.windows[i]
        rope = config.rotation(tensors, "norm") if window or not any(config.windows) else None  # (n_rot // 2,)
        norms: HeadNorm = "own" if has_head_norms(i, tensors) else False
        attention = self_attention(config, i, tensors, rope=rope, window=window, head_norm=norms)
        mlp = gated_feed_forward(config, i, tensors, "silu")
        return pre_norm_block(
            config, i, tensors, attention, mlp, norm="layer", norm_bias=False, mlp_norm="attn_norm", parallel=True
        )

    def head(self, config: CohereConfig, tensors: Tensors) -> Head:
        return output_head(config, tensors, norm="layer", norm_bias=False, scale=config.logit_scale)


class Cohere2(CommandR):
    names = ("cohere2",)

    def config(self, metadata: Metadata, n_vocab: int) -> CohereConfig:
        windows = metadata.windows(metadata.integer("block_count"), period=4)
        scale = metadata.number("logit_scale")
        return CohereConfig.read(metadata, n_vocab, eps_key=EPS, windows=windows, logit_scale=scale)
