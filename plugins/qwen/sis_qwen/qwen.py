"""LLaMA's block with biases on q, k and v (Qwen 2) or a norm on each query and key head (Qwen 3).

Source: Yang et al. 2024, "Qwen2 Technical Report" and "Qwen2.5"; Yang et al. 2025, "Qwen3 Technical Report".
"""

from typing import ClassVar

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors


class Qwen2(Architecture[ModelConfig]):
    names = ("qwen2",)
    head_norm: ClassVar[bool] = False

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, eps=1e-6)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, head_norm=self.head_norm)
        return pre_norm_block(config, i, tensors, attention, gated_feed_forward(config, i, tensors, "silu"))

    def from_hugging_face(self, config: ModelConfig, role: str, weight: Weight) -> Weight:
        return weight  # the converter changes nothing


class Qwen3(Qwen2):
    names = ("qwen3",)
    head_norm = True


class Qwen3VL(Qwen3):
    """The language model: for text all positions of M-RoPE are the same, and nothing is added to deep layers."""

    names = ("qwen3vl",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        metadata.ignore("rope.dimension_sections", "n_deepstack_layers")
        return super().config(metadata, n_vocab)
