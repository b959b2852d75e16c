"""LLaMA's block with experts whose inputs are weighted; every fourth layer does not rotate, but scales its queries.

Other layers attend within chunks, so that texts are limited to one chunk. Source: Meta AI 2025, "Llama 4", and its
published code.
"""

from attrs import evolve

from sis_core.architecture import NOT_IMPLEMENTED, Architecture
from sis_core.block import Block, Norm, PositionScale
from sis_core.errors import ModelError
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.tensors import Tensors

PERIOD = 4
CHUNK = 8192
NORMED = 16  # experts of Scout, which normalises its heads; Maverick has 128, and does not. No key says it


class Llama4(Architecture[ExpertsConfig]):
    names = ("llama4",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        config = ExpertsConfig.read(metadata, n_vocab, gating="sigmoid", renormalise=False)
        return evolve(config, n_ctx=min(config.n_ctx, CHUNK))

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        if config.n_ctx > CHUNK:
            raise ModelError(
                f"a context of {config.n_ctx} tokens needs attention in chunks of {CHUNK}",
                where=tensors.where,
                fix=f"ask for at most {CHUNK} tokens of context, or {NOT_IMPLEMENTED}",
            )
        rotates = i % PERIOD != PERIOD - 1
        norm = (
            Norm("rms", config.norm_eps) if rotates and config.experts and config.experts.n_expert == NORMED else None
        )
        attention = self_attention(
            config, i, tensors,
            rope=config.rotation(tensors, "norm") if rotates else None,  # (n_rot // 2,)
            q_scale=None if rotates else PositionScale(0.1, CHUNK, offset=1),
            norm_first=False,
        )  # fmt: skip
        attention = evolve(attention, q_norm=norm, k_norm=norm)
        mlp = experts_or_dense(config, i, tensors, "silu", scale_input=True)
        return pre_norm_block(config, i, tensors, attention, mlp)
