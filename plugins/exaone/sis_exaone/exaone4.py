"""Norms after attention and feed-forward, not before, and of each query and key head; layers without a window among
those with one do not rotate.

Source: LG AI Research 2025, "EXAONE 4.0: Unified Large Language Models Integrating Non-reasoning and Reasoning Modes".
"""

from attrs import frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, post_norm_block, self_attention
from sis_core.tensors import Tensors


@frozen
class Exaone4Config(ModelConfig):
    """``windows``: for each layer the tokens that it sees, itself included; None for all before it."""

    windows: tuple[int | None, ...] = ()


class Exaone4(Architecture[Exaone4Config]):
    names = ("exaone4",)

    def config(self, metadata: Metadata, n_vocab: int) -> Exaone4Config:
        windows = metadata.windows(metadata.integer("block_count"), period=4)
        return Exaone4Config.read(metadata, n_vocab, windows=windows)

    def block(self, config: Exaone4Config, i: int, tensors: Tensors) -> Block:
        window = config.windows[i]
        rope = config.rotation(tensors, "neox") if window or not any(config.windows) else None  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, window=window, head_norm=True)
        return post_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))
