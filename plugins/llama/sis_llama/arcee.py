"""LLaMA's block with a squared ReLU in place of the gate.

Source: Arcee AI 2025, "Announcing Arcee Foundation Models".
"""

from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig
from sis_core.metadata import Metadata
from sis_core.parts import feed_forward, pre_norm_block, self_attention
from sis_core.tensors import Tensors
from sis_llama.llama import Llama


class Arcee(Llama):
    names = ("arcee",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab)  # no windows

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        return pre_norm_block(config, i, tensors, attention, feed_forward(config, i, tensors, "relu2"))
