"""LLaMA's block with layer norms, biases, LongRoPE, and two experts a row that share with those hardly below them.

Files say nothing of the last, nor that their norms are not RMS norms, as in llama.cpp: Microsoft's code does.
Source: Abdin et al. 2024, "Phi-3 Technical Report"; Liu et al. 2024, "GRIN: GRadient-INformed MoE".
"""

from attrs import evolve

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors


class PhiMoe(Architecture[ExpertsConfig]):
    names = ("phimoe",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        config = ExpertsConfig.read(metadata, n_vocab, renormalise=False)
        return evolve(config, norm="layer", experts=config.experts and evolve(config.experts, gating="sparse_mixer"))

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        mlp = experts_or_dense(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp)
