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
    Op,
    PositionScale,
    Residual,
    Rope,
)
from sis_core.experts import Experts, Stack
from sis_core.parts import HeadNorm, alibi_slopes
from sis_core.quant import F32Format, QuantFormat, Weight
from sis_core.rope import rope_frequencies

N_VOCAB, N_EMBD, N_FF, N_HEAD, HEAD_DIM, N_LAYER = 96, 64, 128, 4, 16, 2
N_EXPERT, N_FF_EXPERT = 8, 32


class Maker:
    """Random weights of a network, in the order in which they are asked for."""

    def __init__(self, variant: Variant, seed: int) -> None:
        self.variant, self._random = variant, np.random.default_rng(seed)

    def values(self, *shape: int, spread: float = 0.2, middle: float = 0.0) -> F32:
        return (middle + spread * self._random.standard_normal(shape)).astype(np.float32)

    def vector(self, name: str, *shape: int) -> Weight:
        return Weight.from_array(name, self.values(*shape))

    def matrix(self, name: str, *shape: int) -> Weight:
        return Weight.from_array(name, self.values(*shape), self.variant.format)

    def dense(self, name: str, n_out: int, n_in: int) -> Dense:
        bias = self.vector(f"{name}.bias", n_out) if self.variant.bias else None
        return Dense(self.matrix(f"{name}.weight", n_out, n_in), bias)

    def stack(self, name: str, n_out: int, n_in: int) -> Stack:
        bias = self.vector(f"{name}.bias", N_EXPERT, n_out) if self.variant.bias else None
        return Stack(self.matrix(f"{name}.weight", N_EXPERT, n_out, n_in), bias)

    def stacks(self, name: str, n_out: int, n_in: int) -> tuple[Stack, Stack]:
        """Two in one tensor."""
        weight, biased = self.matrix(f"{name}.weight", N_EXPERT, 2 * n_out, n_in), self.variant.bias
        first, second = (self.vector(f"{name}.bias", N_EXPERT, n_out) if biased else None for _ in range(2))
        return Stack(weight, first, 0), Stack(weight, second, 1)

    def norm(self, name: str, n: int) -> Norm:
        kind: Literal["rms", "layer"] = self.variant.norm if n == N_EMBD else "rms"
        bias = self.vector(f"{name}.bias", n) if kind == "layer" else None
        return Norm(kind, self.variant.eps, Weight.from_array(f"{name}.weight", self.values(n, middle=1.0)), bias)

    def head_norm(self, name: str, n_head: int) -> Norm | None:
        match self.variant.head_norm:
            case False:
                return None
            case True:
                return self.norm(name, HEAD_DIM)
            case "whole":
                return Norm("rms", self.variant.eps, self.ones(name, n_head * HEAD_DIM))
            case "own":
                return Norm("layer", self.variant.eps, self.ones(name, n_head * HEAD_DIM), pieces=n_head)

    def ones(self, name: str, n: int) -> Weight:
        """About one, each."""
        return Weight.from_array(f"{name}.weight", self.values(n, middle=1.0))


def feed_forward(make: Maker, name: str) -> FeedForward:
    """One network for all rows, gated or not."""
    variant = make.variant
    return FeedForward(
        up=make.dense(f"{name}.ffn_up", N_FF, N_EMBD),
        down=make.dense(f"{name}.ffn_down", N_EMBD, N_FF),
        activation=variant.activation,
        gate=make.dense(f"{name}.ffn_gate", N_FF, N_EMBD) if variant.gated else None,
    )


def experts(
    *,
    shared: bool = False,
    shared_gate: bool = False,
    selection_bias: bool = False,
    merged: bool = False,
    **choice: Any,
) -> Mlp:
    """Eight experts, of which a row uses three; ``choice`` are fields of `Experts`.

    ``merged``: gates and ups are one tensor.
    """

    def build(make: Maker, name: str) -> Experts:
        variant = make.variant
        router = Dense(
            make.vector(f"{name}.ffn_gate_inp.weight", N_EXPERT, N_EMBD),
            make.vector(f"{name}.ffn_gate_inp.bias", N_EXPERT) if variant.bias else None,
        )
        gate: Stack | None = None
        if merged:
            gate, up = make.stacks(f"{name}.ffn_gate_up_exps", N_FF_EXPERT, N_EMBD)
        else:
            up = make.stack(f"{name}.ffn_up_exps", N_FF_EXPERT, N_EMBD)
        down = make.stack(f"{name}.ffn_down_exps", N_EMBD, N_FF_EXPERT)
        if variant.gated and not merged:
            gate = make.stack(f"{name}.ffn_gate_exps", N_FF_EXPERT, N_EMBD)
        return Experts(
            router=router,
            up=up,
            down=down,
            gate=gate,
            activation=variant.activation,
            selection_bias=make.vector(f"{name}.exp_probs_b.bias", N_EXPERT) if selection_bias else None,
            shared=feed_forward(make, name) if shared else None,
            shared_gate=Dense(make.vector(f"{name}.ffn_gate_inp_shexp.weight", 1, N_EMBD)) if shared_gate else None,
            **({"n_used": 3} | choice),
        )

    return build


Mlp = Callable[[Maker, str], Op]
"""What a layer has after its attention: makes the op of a layer of this name."""


@frozen
class Variant:
    """One way to build a network; each field is a choice that some family makes.

    Attributes:
        head_norm: as in `sis_core.parts.self_attention`.
        window: for every second layer, so that one network has both kinds.
        mlp: `feed_forward`, `experts` or another that makes the op after attention.
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
    head_norm: HeadNorm = False
    norm_first: bool = True
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
    residual_scale: float = 1.0
    clamp: float | None = None
    q_scale: PositionScale | None = None
    alibi: bool = False
    sinks: bool = False
    mlp: Mlp = feed_forward
    format: QuantFormat = field(factory=F32Format)

    @property
    def chooses(self) -> bool:
        """Whether rows choose among experts, so that a small difference can become a large one."""
        return self.mlp is not feed_forward


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
    Variant("sinks", rope="neox", window=5, sinks=True, residual_scale=0.5, q_scale=PositionScale(0.3, 4)),
    Variant("alibi", norm="layer", n_head_kv=N_HEAD, rope=None, alibi=True, clamp=0.5),
    Variant("norms of whole projections", head_norm="whole", norm_first=False),
    Variant("norms with weights for each head", norm="layer", head_norm="own", parallel=True),
    Variant("experts", rope="neox", mlp=experts(shared=True, shared_gate=True, renormalise=False)),
    Variant("experts in groups", mlp=experts(
        gating="sigmoid", selection_bias=True, n_group=4, n_group_used=2, scale=1.5, shared=True)),
    Variant("experts with biases", bias=True, activation="swiglu_oai", mlp=experts(
        gating="softmax_weight", renormalise=False, merged=True)),
    Variant("scaled inputs of experts", mlp=experts(
        n_used=1, gating="sigmoid", renormalise=False, scale_input=True, shared=True)),
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
    _plain_with("norms of queries and keys after rope", head_norm=True, rope="neox", norm_first=False),
    _plain_with("norms over all query heads and all key heads", head_norm="whole"),
    _plain_with("norms of queries and keys with weights for each head", head_norm="own"),
    _plain_with("a limit of queries, keys and values", clamp=0.5),
    _plain_with("queries that grow with the text", q_scale=PositionScale(0.3, 4)),
    _plain_with("scores that fall with the distance", alibi=True),
    _plain_with("sinks", sinks=True),
    _plain_with("a factor on its branches", residual_scale=0.5),
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
    _plain_with("a clamped gate", gated=True, activation="swiglu_oai"),
    _plain_with("experts", mlp=experts()),
    _plain_with("experts with gates", gated=True, mlp=experts()),
    _plain_with("experts with gates and ups in one tensor", gated=True, mlp=experts(merged=True)),
    _plain_with("experts with biases", bias=True, mlp=experts()),
    _plain_with("experts whose weights do not add up to 1", mlp=experts(renormalise=False)),
    _plain_with("experts weighted by sigmoids", mlp=experts(gating="sigmoid")),
    _plain_with("experts weighted by a softmax of the chosen", mlp=experts(gating="softmax_weight")),
    _plain_with("experts with scaled weights", mlp=experts(scale=2.0)),
    _plain_with("experts chosen with a bias", mlp=experts(selection_bias=True)),
    _plain_with("experts in groups", mlp=experts(n_group=4, n_group_used=2)),
    _plain_with("experts with scaled inputs", mlp=experts(scale_input=True)),
    _plain_with("a shared expert", mlp=experts(shared=True)),
    _plain_with("a shared expert with a gate", mlp=experts(shared=True, shared_gate=True)),
)


def with_format(variant: Variant, format: QuantFormat) -> Variant:
    """The same network with its matrices in another format."""
    return evolve(variant, name=f"{variant.name} in {format.name}", format=format)


def random_network(variant: Variant, seed: int = 0, n_ctx: int = 256) -> Network:
    """A network of two layers, 64 values wide, whose weights a seed decides."""
    make = Maker(variant, seed)
    embedding = make.matrix("token_embd.weight", N_VOCAB, N_EMBD)
    blocks = tuple(_block(make, i) for i in range(N_LAYER))
    output = Dense(embedding) if variant.tied else Dense(make.matrix("output.weight", N_VOCAB, N_EMBD))
    positions = make.vector("position_embd.weight", n_ctx, N_EMBD) if variant.learned_positions else None
    return Network(
        N_EMBD,
        N_VOCAB,
        n_ctx,
        Embedding(
            embedding,
            scale=variant.scale,
            positions=positions,
            norm=make.norm("token_embd_norm", N_EMBD) if variant.embedding_norm else None,
        ),
        blocks,
        Head(make.norm("output_norm", N_EMBD), output, scale=variant.logit_scale, softcap=variant.logit_softcap),
    )


def _block(make: Maker, i: int) -> Block:
    variant, name, dense, norm = make.variant, f"blk.{i}", make.dense, make.norm
    kv = variant.n_head_kv
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
        q_norm=make.head_norm(f"{name}.attn_q_norm", N_HEAD),
        k_norm=make.head_norm(f"{name}.attn_k_norm", kv),
        window=window,
        softcap=variant.softcap,
        clamp=variant.clamp,
        norm_first=variant.norm_first,
        q_scale=variant.q_scale,
        alibi=alibi_slopes(N_HEAD) if variant.alibi else None,
        sinks=make.vector(f"{name}.attn_sinks", N_HEAD) if variant.sinks else None,
    )
    mlp = variant.mlp(make, name)
    post = variant.post_norm
    branches = (
        (
            norm(f"{name}.attn_norm", N_EMBD),
            attention,
            *([norm(f"{name}.post_attention_norm", N_EMBD)] if post else []),
        ),
        (norm(f"{name}.ffn_norm", N_EMBD), mlp, *([norm(f"{name}.post_ffw_norm", N_EMBD)] if post else [])),
    )
    residuals = (branches,) if variant.parallel else tuple((branch,) for branch in branches)
    ops = tuple(Residual(residual, variant.residual_scale) for residual in residuals)
    return Block(ops, KV(kv, HEAD_DIM, HEAD_DIM, window))
