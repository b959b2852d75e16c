"""Attention and feed-forward side by side or in turn, layer norms, and heads that rotate in part.

Source: Black et al. 2022, "GPT-NeoX-20B"; Biderman et al. 2023, "Pythia".
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block
from sis_core.metadata import Metadata
from sis_core.parts import feed_forward, pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors, reordered


@frozen
class GPTNeoXConfig(ModelConfig):
    """``parallel_residual``: ``x + attention(norm(x)) + mlp(norm(x))`` instead of one after the other."""

    parallel_residual: bool = True


class GPTNeoX(Architecture[GPTNeoXConfig]):
    names = ("gptneox", "gpt_neox")

    def config(self, metadata: Metadata, n_vocab: int) -> GPTNeoXConfig:
        parallel = metadata.flag("use_parallel_residual", True)
        return GPTNeoXConfig.read(metadata, n_vocab, norm="layer", parallel_residual=parallel)

    def block(self, config: GPTNeoXConfig, i: int, tensors: Tensors) -> Block:
        rope = config.rotation(tensors, "neox")  # (n_rot // 2,)
        attention = self_attention(config, i, tensors, rope=rope, bias=True, fused=True)
        mlp = feed_forward(config, i, tensors, "gelu", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp, parallel=config.parallel_residual)

    def from_hugging_face(self, config: GPTNeoXConfig, role: str, weight: Weight) -> Weight:
        """The original has q, k and v of the first head, then of the second …; GGUF has all of q, then k, then v."""
        if ".attn_qkv." not in role:
            return weight
        n = config.n_head[int(role.split(".")[1])]
        order = np.arange(3 * n * config.head_dim, dtype=np.int32).reshape(n, 3, -1).swapaxes(0, 1).reshape(-1)
        return reordered(weight, order)
