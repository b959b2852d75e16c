"""LLaMA's block under other names: InternLM 2 and Baichuan, whose 13B has ALiBi.

Source: Cai et al. 2024, "InternLM2 Technical Report"; Yang et al. 2023, "Baichuan 2: Open Large-scale Language Models".
"""

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import alibi_slopes, pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors
from sis_llama.llama import Llama

N_LAYER_13B = 40


class InternLM2(Llama):
    names = ("internlm2",)

    def from_hugging_face(self, config: ExpertsConfig, role: str, weight: Weight) -> Weight:
        """Refused: the original has q, k and v in one tensor, group by group."""
        return Architecture.from_hugging_face(self, config, role, weight)


class Baichuan(InternLM2):
    """With `N_LAYER_13B` layers it is the 13B, which has ALiBi in place of rotations; its files do not say so."""

    names = ("baichuan",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        if metadata.integer("block_count") != N_LAYER_13B:
            return super().config(metadata, n_vocab)
        metadata.integer("rope.dimension_count", 0, minimum=0)  # converters write these for both
        metadata.maybe_number("rope.freq_base")
        return ExpertsConfig.read(metadata, n_vocab, rope=False)

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        if config.rope is not None:
            return super().block(config, i, tensors)
        attention = self_attention(config, i, tensors, alibi=alibi_slopes(config.n_head[i]))
        return pre_norm_block(config, i, tensors, attention, experts_or_dense(config, i, tensors, "silu"))
