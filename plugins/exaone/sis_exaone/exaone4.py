"""Norms after attention and feed-forward, not before, and of each query and key head; layers without a window among
those with one do not rotate.

Source: LG AI Research 2025, "EXAONE 4.0: Unified Large Language Models Integrating Non-reasoning and Reasoning Modes".
"""

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, post_norm_block, self_attention
from sis_core.tensors import Tensors


class Exaone4(Architecture[ModelConfig]):
    names = ("exaone4",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, period=4)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rotates = not any(config.windows) or config.windows[i] is not None
        rope = config.rotation(tensors, "neox") if rotates else None  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, head_norm=True)
        return post_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))
