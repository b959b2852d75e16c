"""Qwen's blocks with experts: Qwen 2 MoE beside a shared one behind a gate, Qwen 3 MoE without.

Source: Qwen Team 2024, "Qwen1.5-MoE"; Yang et al. 2025, "Qwen3 Technical Report".
"""

from typing import ClassVar

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors


class Qwen2Moe(Architecture[ExpertsConfig]):
    names = ("qwen2moe",)
    head_norm: ClassVar[bool] = False
    renormalise: ClassVar[bool] = False

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab, renormalise=self.renormalise, eps=1e-6)

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, head_norm=self.head_norm)
        return pre_norm_block(config, i, tensors, attention, experts_or_dense(config, i, tensors, "silu"))

    def from_hugging_face(self, config: ExpertsConfig, role: str, weight: Weight) -> Weight:
        return weight  # the converter stacks experts, and changes nothing else


class Qwen3Moe(Qwen2Moe):
    names = ("qwen3moe",)
    head_norm = True
    renormalise = True
