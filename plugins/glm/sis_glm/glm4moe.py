"""LLaMA's block with experts behind sigmoids, chosen with a bias, beside a shared one; half of each head rotates.

Source: Z.ai and Tsinghua University 2025, "GLM-4.5: Agentic, Reasoning, and Coding (ARC) Foundation Models".
"""

from attrs import evolve, frozen

from sis_core.architecture import Architecture
from sis_core.block import Block, Head
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import has_head_norms, ignore_nextn, output_head, pre_norm_block, self_attention
from sis_core.tensors import Tensors


@frozen
class Glm4MoeConfig(ExpertsConfig):
    """``n_nextn``: layers after the others that predict further tokens; they are passed over."""

    n_nextn: int = 0


class Glm4Moe(Architecture[Glm4MoeConfig]):
    names = ("glm4moe",)

    def config(self, metadata: Metadata, n_vocab: int) -> Glm4MoeConfig:
        n_nextn = metadata.maybe_integer("nextn_predict_layers", maximum=metadata.integer("block_count") - 1) or 0
        config = Glm4MoeConfig.read(metadata, n_vocab, gating="sigmoid", renormalise=False, n_nextn=n_nextn)
        return evolve(config, n_layer=config.n_layer - n_nextn)

    def block(self, config: Glm4MoeConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        normed = has_head_norms(i, tensors)  # GLM-4.5, and not GLM-4.5-Air
        attention = self_attention(config, i, tensors, rope=rope, head_norm=normed)
        mlp = experts_or_dense(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="post_attention_norm")

    def head(self, config: Glm4MoeConfig, tensors: Tensors) -> Head:
        for i in range(config.n_layer, config.n_layer + config.n_nextn):
            if tensors.has_layer(i):
                self.block(config, i, tensors)  # checked, and not used
                ignore_nextn(i, tensors)
        return output_head(config, tensors)
