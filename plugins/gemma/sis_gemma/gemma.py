"""Scaled embeddings, GELU gates, norms after each part, and layers that see a window of the text only.

GGUF's norm weights already have the 1 added that the original adds to them.

Source: Gemma Team 2024, "Gemma" and "Gemma 2"; 2025, "Gemma 3 Technical Report"; for what GGUF files leave unsaid,
``src/models/gemma*.cpp`` of llama.cpp.
"""

from __future__ import annotations

import math

from attrs import evolve, frozen

from sis_core.architecture import Architecture, ModelConfig
from sis_core.block import Block, Embedding, Head
from sis_core.metadata import Metadata
from sis_core.parts import gated_feed_forward, output_head, pre_norm_block, self_attention, token_embedding
from sis_core.quant import Weight
from sis_core.rope import RopeConfig
from sis_core.tensors import Tensors


@frozen
class GemmaConfig(ModelConfig):
    """What the generations differ in.

    Attributes:
        ropes: for each layer how it rotates.
        scale: factor on the attention scores.
        head_norm: whether each query and key head is normalised.
        post_norm: whether what attention and feed-forward return is normalised too.
        attention_softcap, logit_softcap: None for none.
    """

    ropes: tuple[RopeConfig, ...] = ()
    scale: float = 1.0
    head_norm: bool = False
    post_norm: bool = True
    attention_softcap: float | None = None
    logit_softcap: float | None = None


class Gemma(Architecture[GemmaConfig]):
    """Gemma 1, and the blocks of all."""

    names = ("gemma",)

    def config(self, metadata: Metadata, n_vocab: int) -> GemmaConfig:
        config = _read(metadata, n_vocab)
        return evolve(config, post_norm=False, scale=config.head_dim**-0.5)

    def embedding(self, config: GemmaConfig, tensors: Tensors) -> Embedding:
        return token_embedding(config, tensors, scale=math.sqrt(config.n_embd))  # (n_vocab, n_embd)

    def block(self, config: GemmaConfig, i: int, tensors: Tensors) -> Block:
        attention = self_attention(
            config,
            i,
            tensors,
            rope=config.ropes[i].rope(tensors, "neox", config.n_ctx),  # (n_rot // 2,)
            scale=config.scale,
            softcap=config.attention_softcap,
            head_norm=config.head_norm,
        )
        mlp = gated_feed_forward(config, i, tensors, "gelu_tanh")
        return pre_norm_block(config, i, tensors, attention, mlp, post_norm=config.post_norm)

    def head(self, config: GemmaConfig, tensors: Tensors) -> Head:
        return output_head(config, tensors, softcap=config.logit_softcap)

    def from_hugging_face(self, config: GemmaConfig, role: str, weight: Weight) -> Weight:
        """The original's norms multiply by ``1 + weight``."""
        return Weight.from_array(weight.name, 1 + weight.dequantize()) if role.endswith("norm.weight") else weight


class Gemma2(Gemma):
    """Every second layer sees a window; scores and logits are capped."""

    names = ("gemma2",)

    def config(self, metadata: Metadata, n_vocab: int) -> GemmaConfig:
        config = _read(metadata, n_vocab)
        return evolve(
            _with_windows(config, metadata, metadata.maybe_integer("attention.sliding_window", 4096), period=2),
            scale=_scale(config, n_layer_27b=46),
            attention_softcap=metadata.maybe_number("attn_logit_softcapping", 50.0),
            logit_softcap=metadata.maybe_number("final_logit_softcapping", 30.0),
        )


class Gemma3(Gemma):
    """Five of six layers see a window and rotate with a base of their own; heads are normalised."""

    names = ("gemma3",)

    def config(self, metadata: Metadata, n_vocab: int) -> GemmaConfig:
        config = _read(metadata, n_vocab)
        assert config.rope
        rope = _rope_of_ollama(config.rope, metadata)
        config = evolve(config, rope=rope, ropes=(rope,) * config.n_layer)
        window = metadata.maybe_integer("attention.sliding_window")
        return evolve(
            _with_windows(config, metadata, window, period=6, local_theta=10000.0),
            scale=_scale(config, n_layer_27b=62),
            head_norm=True,
            logit_softcap=metadata.maybe_number("final_logit_softcapping"),
        )


def _read(metadata: Metadata, n_vocab: int) -> GemmaConfig:
    config = GemmaConfig.read(metadata, n_vocab, eps=1e-6)
    assert config.rope
    return evolve(config, ropes=(config.rope,) * config.n_layer)


def _rope_of_ollama(rope: RopeConfig, metadata: Metadata) -> RopeConfig:
    """What Ollama's converter leaves out, first of all in files that see: their models turn eight times as slowly."""
    if "rope.freq_base" not in metadata:
        rope = evolve(rope, theta=metadata.number("rope.freq_base", 1e6, above=1.0))
    if "vision.block_count" in metadata and "rope.scaling.factor" not in metadata:
        rope = evolve(rope, scaling="linear", factor=metadata.number("rope.scaling.factor", 8.0))
    return rope


def _scale(config: GemmaConfig, n_layer_27b: int) -> float:
    """``1 / sqrt(head_dim)``, but for the 27B models, whose files do not say that theirs is n_embd / n_head."""
    size = config.n_embd // config.n_head[0] if config.n_layer == n_layer_27b else config.head_dim
    return float(size**-0.5)


def _with_windows(
    config: GemmaConfig, metadata: Metadata, window: int | None, *, period: int, local_theta: float | None = None
) -> GemmaConfig:
    """Windows of all but every ``period``-th layer; with ``local_theta`` those rotate unstretched, by that base."""
    assert config.rope
    if window is None:
        metadata.ignore("attention.sliding_window_pattern", "rope.freq_base_swa")
        return config
    local = metadata.pattern("attention.sliding_window_pattern", config.n_layer, period)
    rope = config.rope
    near = evolve(rope, theta=metadata.number("rope.freq_base_swa", local_theta or rope.theta, above=1.0))
    if local_theta is not None:
        near = RopeConfig(near.n_rot, near.theta)
    return evolve(
        config,
        windows=tuple(window if is_local else None for is_local in local),
        ropes=tuple(near if is_local else rope for is_local in local),
    )
