"""GPT-2's block with ALiBi in place of positions, and a norm of the embedding.

Source: BigScience Workshop 2022, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model".
"""

from attrs import evolve

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Embedding
from sis_core.metadata import Metadata
from sis_core.parts import alibi_slopes, feed_forward, pre_norm_block, row_norm, self_attention, token_embedding
from sis_core.tensors import Tensors


class Bloom(Architecture[ModelConfig]):
    names = ("bloom",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, norm="layer", rope=False)

    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding:
        return evolve(token_embedding(config, tensors), norm=row_norm(config, tensors, "token_embd_norm"))

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        attention = self_attention(config, i, tensors, bias=True, fused=True, alibi=alibi_slopes(config.n_head[i]))
        mlp = feed_forward(config, i, tensors, "gelu_tanh", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp)
