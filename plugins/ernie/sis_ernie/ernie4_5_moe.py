"""LLaMA's block with experts, chosen with a bias, beside shared ones; the first layers have none.

Source: Baidu ERNIE Team 2025, "ERNIE 4.5 Technical Report".
"""

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Ernie45Moe(Architecture[ExpertsConfig]):
    names = ("ernie4_5-moe",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab)

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        return pre_norm_block(config, i, tensors, attention, experts_or_dense(config, i, tensors, "silu"))
