"""LLaMA's block with experts behind sigmoids, chosen with a bias, beside a shared one; half of each head rotates.

Source: Z.ai and Tsinghua University 2025, "GLM-4.5: Agentic, Reasoning, and Coding (ARC) Foundation Models".
"""

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import EXPERT_ROWS, ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors


class Glm4Moe(Architecture[ExpertsConfig]):
    names = ("glm4moe",)
    step_rows = EXPERT_ROWS

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab, gating="sigmoid", renormalise=False)

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        normed = f"blk.{i}.attn_q_norm.weight" in tensors  # GLM-4.5, and not GLM-4.5-Air
        attention = self_attention(config, i, tensors, rope=rope, head_norm=normed)
        mlp = experts_or_dense(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="post_attention_norm")
