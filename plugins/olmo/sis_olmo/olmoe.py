"""LLaMA's block with experts, and norms over all queries and keys at once.

Source: Muennighoff et al. 2024, "OLMoE: Open Mixture-of-Experts Language Models".
"""

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Olmoe(Architecture[ExpertsConfig]):
    names = ("olmoe",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab, renormalise=False)

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, head_norm="whole")
        return pre_norm_block(config, i, tensors, attention, experts_or_dense(config, i, tensors, "silu"))
