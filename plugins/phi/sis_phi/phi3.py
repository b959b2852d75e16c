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


class Phi3(Architecture[ModelConfig]):
    names = ("phi3",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        config = ModelConfig.read(metadata, n_vocab)
        window = metadata.maybe_integer("attention.sliding_window")
        if window is not None and window < config.n_ctx_train:
            # Converters write this key for models that were not trained with it; llama.cpp sets it aside too (#13676).
            log.info("%s: %s.attention.sliding_window is not used", metadata.where, metadata.architecture)
        return config

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, fused=True)
        mlp = gated_feed_forward(config, i, tensors, "silu", fused=True)
        return pre_norm_block(config, i, tensors, attention, mlp)

    def from_hugging_face(self, config: ModelConfig, role: str, weight: Weight) -> Weight:
        return weight  # the converter changes nothing
