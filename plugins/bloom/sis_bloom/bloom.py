"""GPT-2's block with ALiBi in place of positions, and a norm of the embedding.

Source: BigScience Workshop 2022, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model".
"""

from attrs import evolve

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Embedding, Head
from sis_core.metadata import Metadata
from sis_core.parts import alibi_slopes, feed_forward, output_head, pre_norm_block, self_attention, token_embedding
from sis_core.tensors import Tensors


class Bloom(Architecture[ModelConfig]):
    names = ("bloom",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, eps_key="attention.layer_norm_epsilon", rope=False)

    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding:
        norm = tensors.norm("layer", "token_embd_norm", config.n_embd, config.norm_eps, bias=True)
        return evolve(token_embedding(config, tensors), norm=norm)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        attention = self_attention(config, i, tensors, bias=True, fused=True, alibi=alibi_slopes(config.n_head[i]))
        mlp = feed_forward(config, i, tensors, "gelu_tanh", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp, norm="layer")

    def head(self, config: ModelConfig, tensors: Tensors) -> Head:
        return output_head(config, tensors, norm="layer")
