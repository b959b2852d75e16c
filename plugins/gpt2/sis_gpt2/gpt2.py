"""Pre-norm blocks with learned positions, layer norms and biases everywhere.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

from attrs import evolve

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Embedding
from sis_core.errors import ModelError
from sis_core.metadata import Metadata
from sis_core.parts import feed_forward, pre_norm_block, self_attention, token_embedding
from sis_core.quant import PLAIN, Weight
from sis_core.tensors import Tensors, transposed


class GPT2(Architecture[ModelConfig]):
    names = ("gpt2",)

    def config(self, metadata: Metadata, n_vocab: int) -> ModelConfig:
        return ModelConfig.read(metadata, n_vocab, norm="layer", rope=False)

    def embedding(self, config: ModelConfig, tensors: Tensors) -> Embedding:
        if config.n_ctx > config.n_ctx_train:
            raise ModelError(
                f"a context of {config.n_ctx} tokens was asked for, but position_embd.weight has {config.n_ctx_train}",
                where=tensors.where,
                fix=f"ask for at most {config.n_ctx_train} (--ctx)",
            )
        positions = tensors.matrix("position_embd.weight", config.n_ctx_train, config.n_embd)
        return evolve(token_embedding(config, tensors), positions=positions)

    def block(self, config: ModelConfig, i: int, tensors: Tensors) -> Block:
        attention = self_attention(config, i, tensors, bias=True, fused=True)
        mlp = feed_forward(config, i, tensors, "gelu_tanh", bias=True)
        return pre_norm_block(config, i, tensors, attention, mlp)

    def from_hugging_face(self, config: ModelConfig, role: str, weight: Weight) -> Weight:
        """Hugging Face's Conv1D keeps its weights as ``(n_in, n_out)``."""
        if not weight.name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            return weight
        if weight.format.name not in PLAIN:
            raise ModelError(
                f"tensor {weight.name} is stored by columns in the block format {weight.format.name}",
                fix="convert the model with a tool that writes GGUF's tensor names",
            )
        return transposed(weight)
