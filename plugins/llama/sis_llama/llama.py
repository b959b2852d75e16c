"""Pre-norm blocks with grouped attention, rotary positions and a gated feed-forward, or experts (Mixtral).

Source: Touvron et al. 2023, "LLaMA" and "Llama 2"; Jiang et al. 2023, "Mistral 7B"; Jiang et al. 2024, "Mixtral".
"""

from __future__ import annotations

import numpy as np

from sis_core.architecture import Architecture
from sis_core.block import Block
from sis_core.expert_parts import ExpertsConfig, experts_or_dense
from sis_core.metadata import Metadata
from sis_core.parts import pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors, reordered


class Llama(Architecture[ExpertsConfig]):
    names = ("llama",)

    def config(self, metadata: Metadata, n_vocab: int) -> ExpertsConfig:
        return ExpertsConfig.read(metadata, n_vocab, period=0)  # the first Mistral 7B has windows

    def block(self, config: ExpertsConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "norm")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope)
        mlp = experts_or_dense(config, i, tensors, "silu")
        return pre_norm_block(config, i, tensors, attention, mlp)

    def from_hugging_face(self, config: ExpertsConfig, role: str, weight: Weight) -> Weight:
        """Hugging Face rotates value ``i`` of a head with ``i + d / 2``; GGUF has the two side by side."""
        heads = {"attn_q": config.n_head, "attn_k": config.n_head_kv}.get(role.split(".")[-2])
        if heads is None or "self_attn" not in weight.name:  # Meta's own names go with Meta's own order, GGUF's
            return weight
        n = heads[int(role.split(".")[1])]
        order = np.arange(n * config.head_dim, dtype=np.int32).reshape(n, 2, -1).swapaxes(1, 2).reshape(-1)
        return reordered(weight, order)
