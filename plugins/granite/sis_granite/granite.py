"""LLaMA's block, or one with experts, and four factors: on embeddings, on what is added, on scores, and on logits.

Source: Granite Team 2024, "Granite 3.0 Language Models"; the factors after Yang et al. 2022, "Tensor Programs V".
"""

from attrs import frozen

from sis_core.architecture import Architecture
from sis_core.block import Block, Embedding, Head
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import output_head, pre_norm_block, self_attention, token_embedding
from sis_core.tensors import Tensors


@frozen
class GraniteConfig(ExpertsConfig):
    """``embedding_scale`` and ``residual_scale`` multiply, ``logit_scale`` divides; ``attention_scale`` is of scores,
    and None for ``1 / sqrt(head_dim)``."""

    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float | None = None
    logit_scale: float = 1.0


class Granite(Architecture[GraniteConfig]):
    names = ("granite", "granitemoe")

    def config(self, metadata: Metadata, n_vocab: int) -> GraniteConfig:
        return GraniteConfig.read(
            metadata,
            n_vocab,
            embedding_scale=metadata.maybe_number("embedding_scale") or 1.0,
            residual_scale=metadata.maybe_number("residual_scale") or 1.0,
            attention_scale=metadata.maybe_number("attention.scale"),
            logit_scale=metadata.maybe_number("logit_scale") or 1.0,
        )

    def embedding(self, config: GraniteConfig, tensors: Tensors) -> Embedding:
        return token_embedding(config, tensors, scale=config.embedding_scale)

    def block(self, config: GraniteConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, scale=config.attention_scale)
        mlp = experts_or_dense(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp, scale=config.residual_scale)

    def head(self, config: GraniteConfig, tensors: Tensors) -> Head:
        return output_head(config, tensors, scale=1 / config.logit_scale)
