"""LLaMA's block with biases, sinks, a window in every other layer, and experts with a clamped gate.

Source: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", and its reference implementation, whose YaRN does not
round its borders to whole dimensions.
"""

from attrs import evolve

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors


class GptOss(Architecture[ExpertsConfig]):
    names = ("gpt-oss",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        config = ExpertsConfig.read(metadata, n_vocab, gating="softmax_weight", renormalise=False, period=2)
        return evolve(config, rope=config.rope and evolve(config.rope, rounded=False))

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        sinks = tensors.vector(f"blk.{i}.attn_sinks.weight", config.n_head[i])
        attention = self_attention(config, i, tensors, rope=rope, bias=True, sinks=sinks)
        mlp = experts_or_dense(config, i, tensors, "swiglu_oai", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp, mlp_norm="post_attention_norm")
