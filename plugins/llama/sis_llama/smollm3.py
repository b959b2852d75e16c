"""LLaMA's block; every fourth layer does not rotate.

Source: Bakouch et al. 2025, "SmolLM3: smol, multilingual, long-context reasoner"; layers without positions after Yang
et al. 2025, "Rope to Nope and Back Again".
"""

from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors
from sis_llama.llama import Llama

PERIOD = 4


class SmolLM3(Llama):
    names = ("smollm3",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab)  # no windows

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm") if i % PERIOD != PERIOD - 1 else None  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        return pre_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))
