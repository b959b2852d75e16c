"""LLaMA's block with q, k, v in one tensor and gate and up in another, and LongRoPE for long contexts.

Source: Abdin et al. 2024, "Phi-3 Technical Report"; Ding et al. 2024, "LongRoPE".
"""

from __future__ import annotations

import logging

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors

log = logging.getLogger(__name__)
SHORT = 4096  # the context of the models that were trained with a window of 2,047 tokens


class Phi3(Architecture[ModelConfig]):
    names = ("phi3",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        config = ModelConfig.read(metadata, n_vocab, period=0)
        if not any(config.windows) and config.n_ctx_train == SHORT:  # files of the spring of 2024
            log.warning(
                "phi3.attention.sliding_window is missing: past 2,047 tokens layers see more than they learnt to"
            )
        return config

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, fused=True)
        mlp = gated_feed_forward(config, i, tensors, "silu", fused=True)
        return pre_norm_block(config, i, tensors, attention, mlp)

    def from_hugging_face(self, config: ModelConfig, role: str, weight: Weight) -> Weight:
        return weight  # the converter changes nothing
