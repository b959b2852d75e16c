"""Norms after attention and feed-forward, not before, and over all queries and keys at once; windows in OLMo 3.

Source: OLMo Team 2024, "2 OLMo 2 Furious"; 2025, "Olmo 3".
"""

from attrs import evolve, frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, post_norm_block, self_attention
from sis_core.rope import RopeConfig
from sis_core.tensors import Tensors


@frozen
class Olmo2Config(ModelConfig):
    """``theta_near``: the base of the frequencies of layers with a window, which are not stretched."""

    theta_near: float = 10000.0


class Olmo2(Architecture[Olmo2Config]):
    names = ("olmo2",)

    def config(self, metadata: Metadata, n_vocab: int) -> Olmo2Config:
        theta = metadata.number("rope.freq_base", 10000.0, above=1.0)
        config = Olmo2Config.read(metadata, n_vocab, period=4, theta_near=theta)
        if config.windows[0] is None:
            return config
        return evolve(config, theta_near=metadata.number("rope.freq_base_swa", theta, above=1.0))

    def block(self, config: Olmo2Config, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        if config.windows[i] is not None:
            rope = RopeConfig(rope.n_rot, config.theta_near).rope(tensors, "neox", config.n_ctx)
        attention = self_attention(config, i, tensors, rope=rope, head_norm="whole")
        return post_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))
