"""Small random networks that together use every record of `sis_core.block`, for holding backends to the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from attrs import evolve, field, frozen

from sis_core.arrays import F32
from sis_core.block import (
    KV,
    Activation,
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Head,
    Network,
    Norm,
    Residual,
    Rope,
    rope_frequencies,
)
from sis_core.quant import F32Format, QuantFormat, Weight

N_VOCAB, N_EMBD, N_FF, N_HEAD, HEAD_DIM, N_LAYER = 96, 64, 128, 4, 16, 2


@frozen
class Variant:
    """One way to build a network; each field is a choice that some family makes.

    Attributes:
        window: for every second layer, so that one network has both kinds.
        softcap, logit_softcap: of attention scores, and of logits.
        format: of the matrices; vectors stay F32.
    """

    name: str
    norm: Literal["rms", "layer"] = "rms"
    bias: bool = False
    n_head_kv: int = 2
    rope: Literal["norm", "neox"] | None = "norm"
    n_rot: int = HEAD_DIM
    magnitude: float = 1.0
    head_norm: bool = False
    window: int | None = None
    softcap: float | None = None
    logit_softcap: float | None = None
    activation: Activation = "silu"
    gated: bool = True
    parallel: bool = False
    post_norm: bool = False
    tied: bool = False
    scale: float = 1.0
    logit_scale: float = 1.0
    learned_positions: bool = False
    embedding_norm: bool = False
    eps: float = 1e-5
    format: QuantFormat = field(factory=F32Format)


VARIANTS = (
    Variant("llama"),
    Variant("gpt2", norm="layer", bias=True, n_head_kv=N_HEAD, rope=None, activation="gelu_tanh", gated=False,
            tied=True, learned_positions=True),
    Variant("neox", norm="layer", bias=True, n_head_kv=N_HEAD, rope="neox", n_rot=8, activation="gelu", gated=False,
            parallel=True),
    Variant("qwen", rope="neox", bias=True, n_head_kv=1, head_norm=True),
    Variant("gemma", rope="neox", window=5, softcap=3.0, logit_softcap=3.0, activation="gelu_tanh", post_norm=True,
            scale=8.0, tied=True),
    Variant("scaled rope", magnitude=1.2, rope="neox"),
    Variant("relu", activation="relu", gated=False),
    Variant("squared relu", activation="relu2", gated=False),
    Variant("normed embedding", norm="layer", embedding_norm=True, eps=0.1, logit_scale=0.5),
)  # fmt: skip

PLAIN = Variant("nothing but RMS norms, attention without positions and ReLU",
                n_head_kv=N_HEAD, rope=None, activation="relu", gated=False)  # fmt: skip


def _plain_with(name: str, **choice: Any) -> Variant:
    return evolve(PLAIN, name=name, **choice)


# From plain to less plain; each makes one choice, so that the first one that is wrong says which.
SMALL = (
    PLAIN,
    _plain_with("biases", bias=True),
    _plain_with("layer norms", norm="layer"),
    _plain_with("a large eps in its norms", eps=0.1),
    _plain_with("key heads that query heads share", n_head_kv=2),
    _plain_with("rope of neighbours", rope="norm"),
    _plain_with("rope of halves", rope="neox"),
    _plain_with("rope of a part of each head", rope="neox", n_rot=8),
    _plain_with("rope with a magnitude", rope="norm", magnitude=1.2),
    _plain_with("norms of queries and keys", head_norm=True),
    _plain_with("norms of queries and keys before rope", head_norm=True, rope="neox"),
    _plain_with("a window of 5 tokens in one of its layers", window=5),
    _plain_with("a soft-cap of scores", softcap=3.0),
    _plain_with("a soft-cap of logits", logit_softcap=3.0),
    _plain_with("a scale of logits", logit_scale=0.5),
    _plain_with("learned positions", learned_positions=True),
    _plain_with("a scaled embedding", scale=8.0),
    _plain_with("a norm of the embedding", embedding_norm=True),
    _plain_with("an output that is the embedding", tied=True),
    _plain_with("a gate", gated=True),
    _plain_with("SiLU", activation="silu"),
    _plain_with("GELU", activation="gelu"),
    _plain_with("GELU by tanh", activation="gelu_tanh"),
    _plain_with("squared ReLU", activation="relu2"),
    _plain_with("norms after its branches", post_norm=True),
    _plain_with("parallel branches", parallel=True),
)


def with_format(variant: Variant, format: QuantFormat) -> Variant:
    """The same network with its matrices in another format."""
    return evolve(variant, name=f"{variant.name} in {format.name}", format=format)


def random_network(variant: Variant, seed: int = 0, n_ctx: int = 256) -> Network:
    """A network of two layers, 64 values wide, whose weights a seed decides."""
    random = np.random.default_rng(seed)

    def values(*shape: int, spread: float = 0.2, middle: float = 0.0) -> F32:
        return (middle + spread * random.standard_normal(shape)).astype(np.float32)

    def matrix(name: str, n_out: int, n_in: int) -> Weight:
        return Weight.from_array(name, values(n_out, n_in), variant.format)

    def dense(name: str, n_out: int, n_in: int) -> Dense:
        bias = Weight.from_array(f"{name}.bias", values(n_out)) if variant.bias else None
        return Dense(matrix(f"{name}.weight", n_out, n_in), bias)

    def norm(name: str, n: int) -> Norm:
        kind: Literal["rms", "layer"] = variant.norm if n == N_EMBD else "rms"
        bias = Weight.from_array(f"{name}.bias", values(n)) if kind == "layer" else None
        return Norm(kind, variant.eps, Weight.from_array(f"{name}.weight", values(n, middle=1.0)), bias)

    embedding = matrix("token_embd.weight", N_VOCAB, N_EMBD)
    blocks = tuple(_block(variant, i, dense, norm) for i in range(N_LAYER))
    output = Dense(embedding) if variant.tied else Dense(matrix("output.weight", N_VOCAB, N_EMBD))
    positions = Weight.from_array("position_embd.weight", values(n_ctx, N_EMBD)) if variant.learned_positions else None
    return Network(
        N_EMBD,
        N_VOCAB,
        n_ctx,
        Embedding(
            embedding,
            scale=variant.scale,
            positions=positions,
            norm=norm("token_embd_norm", N_EMBD) if variant.embedding_norm else None,
        ),
        blocks,
        Head(norm("output_norm", N_EMBD), output, scale=variant.logit_scale, softcap=variant.logit_softcap),
    )


def _block(
    variant: Variant, i: int, dense: Callable[[str, int, int], Dense], norm: Callable[[str, int], Norm]
) -> Block:
    name, kv = f"blk.{i}", variant.n_head_kv
    window = variant.window if i % 2 == 0 else None
    rope = None
    if variant.rope:
        rope = Rope(rope_frequencies(variant.n_rot, 10000.0), variant.rope, variant.magnitude)
    attention = Attention(
        q=dense(f"{name}.attn_q", N_HEAD * HEAD_DIM, N_EMBD),
        k=dense(f"{name}.attn_k", kv * HEAD_DIM, N_EMBD),
        v=dense(f"{name}.attn_v", kv * HEAD_DIM, N_EMBD),
        out=dense(f"{name}.attn_output", N_EMBD, N_HEAD * HEAD_DIM),
        n_head=N_HEAD,
        n_head_kv=kv,
        head_dim=HEAD_DIM,
        scale=HEAD_DIM**-0.5,
        rope=rope,
        q_norm=norm(f"{name}.attn_q_norm", HEAD_DIM) if variant.head_norm else None,
        k_norm=norm(f"{name}.attn_k_norm", HEAD_DIM) if variant.head_norm else None,
        window=window,
        softcap=variant.softcap,
    )
    feed_forward = FeedForward(
        up=dense(f"{name}.ffn_up", N_FF, N_EMBD),
        down=dense(f"{name}.ffn_down", N_EMBD, N_FF),
        activation=variant.activation,
        gate=dense(f"{name}.ffn_gate", N_FF, N_EMBD) if variant.gated else None,
    )
    post = variant.post_norm
    branches = (
        (
            norm(f"{name}.attn_norm", N_EMBD),
            attention,
            *([norm(f"{name}.post_attention_norm", N_EMBD)] if post else []),
        ),
        (norm(f"{name}.ffn_norm", N_EMBD), feed_forward, *([norm(f"{name}.post_ffw_norm", N_EMBD)] if post else [])),
    )
    ops = (Residual(branches),) if variant.parallel else tuple(Residual((branch,)) for branch in branches)
    return Block(ops, KV(kv, HEAD_DIM, HEAD_DIM, window))
