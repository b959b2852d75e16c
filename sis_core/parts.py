"""Parts that model families share, each built from a file's config and tensors under GGUF's names.

Whether a file has q, k and v apart or in one tensor, biases or none, its own head or a tied one, is seen from its
tensors; what a family decides is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core.block import (
    Activation,
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Head,
    NormKind,
    Op,
    Residual,
    Rope,
)
from sis_core.tensors import Tensors

if TYPE_CHECKING:
    from sis_core.architecture import ModelConfig


def token_embedding(config: ModelConfig, tensors: Tensors, *, scale: float = 1.0) -> Embedding:
    """``scale * token_embd[token]``."""
    return Embedding(tensors.matrix("token_embd.weight", config.n_vocab, config.n_embd), scale)


def self_attention(
    config: ModelConfig,
    i: int,
    tensors: Tensors,
    *,
    rope: Rope | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    bias: bool | None = None,
    head_norm: bool = False,
    fused: bool = False,
) -> Attention:
    """Attention of layer ``i``.

    Args:
        scale: of the scores; by default ``1 / sqrt(head_dim)``.
        bias: required (True), refused (False), or used where the file has one (None).
        head_norm: whether each query and key head is normalised before it is rotated.
        fused: the family's files usually have q, k and v in one tensor; which of the two is seen from the file.
    """
    n, d, heads, heads_kv = config.n_embd, config.head_dim, config.n_head[i], config.n_head_kv[i]
    q, k, v = _projections(config, i, tensors, bias, fused)
    return Attention(
        q=q,  # (heads * d, n)
        k=k,  # (heads_kv * d, n)
        v=v,  # (heads_kv * d, n)
        out=tensors.dense(f"blk.{i}.attn_output", n, heads * d, bias=bias),
        n_head=heads,
        n_head_kv=heads_kv,
        head_dim=d,
        scale=d**-0.5 if scale is None else scale,
        rope=rope,
        q_norm=tensors.norm("rms", f"blk.{i}.attn_q_norm", d, config.norm_eps) if head_norm else None,
        k_norm=tensors.norm("rms", f"blk.{i}.attn_k_norm", d, config.norm_eps) if head_norm else None,
        window=window,
        softcap=softcap,
    )


def _projections(config: ModelConfig, i: int, tensors: Tensors, bias: bool | None, fused: bool) -> tuple[Dense, ...]:
    n_q, n_kv = config.n_head[i] * config.head_dim, config.n_head_kv[i] * config.head_dim
    usual, other = ("attn_qkv", "attn_q") if fused else ("attn_q", "attn_qkv")
    found = other if f"blk.{i}.{usual}.weight" not in tensors and f"blk.{i}.{other}.weight" in tensors else usual
    if found == "attn_qkv":
        return tensors.fused(f"blk.{i}.attn_qkv", (n_q, n_kv, n_kv), config.n_embd, bias=bias)
    return tuple(
        tensors.dense(f"blk.{i}.attn_{part}", size, config.n_embd, bias=bias)
        for part, size in (("q", n_q), ("k", n_kv), ("v", n_kv))
    )


def feed_forward(
    config: ModelConfig, i: int, tensors: Tensors, activation: Activation, *, bias: bool | None = None
) -> FeedForward:
    """``down(activation(up(x)))``."""
    n, n_ff = config.n_embd, config.n_ff[i]
    return FeedForward(
        up=tensors.dense(f"blk.{i}.ffn_up", n_ff, n, bias=bias),
        down=tensors.dense(f"blk.{i}.ffn_down", n, n_ff, bias=bias),
        activation=activation,
    )


def gated_feed_forward(
    config: ModelConfig, i: int, tensors: Tensors, activation: Activation, *, fused: bool = False
) -> FeedForward:
    """``down(activation(gate(x)) * up(x))``; ``fused`` where ``ffn_up`` holds the rows of the gate and then of up."""
    n, n_ff = config.n_embd, config.n_ff[i]
    if fused:
        gate, up = tensors.fused(f"blk.{i}.ffn_up", (n_ff, n_ff), n)
    else:
        gate, up = (tensors.dense(f"blk.{i}.ffn_{part}", n_ff, n) for part in ("gate", "up"))
    return FeedForward(
        gate=gate,  # (n_ff, n)
        up=up,  # (n_ff, n)
        down=tensors.dense(f"blk.{i}.ffn_down", n, n_ff),
        activation=activation,
    )


def pre_norm_block(
    config: ModelConfig,
    i: int,
    tensors: Tensors,
    attention: Attention,
    mlp: Op,
    *,
    norm: NormKind = "rms",
    parallel: bool = False,
    mlp_norm: str = "ffn_norm",
) -> Block:
    """The layer of most families: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        parallel: ``x + attention(norm(x)) + mlp(norm(x))``, each with a norm of its own.
        mlp_norm: the tensor of the second norm.
    """

    def branch(name: str, op: Op) -> tuple[Op, ...]:
        return tensors.norm(norm, f"blk.{i}.{name}", config.n_embd, config.norm_eps), op

    first, second = branch("attn_norm", attention), branch(mlp_norm, mlp)
    return Block(
        (Residual((first, second)),) if parallel else (Residual((first,)), Residual((second,))), attention.state
    )


def output_head(config: ModelConfig, tensors: Tensors, *, norm: NormKind = "rms", softcap: float | None = None) -> Head:
    """Norm and logits. A file without ``output.weight`` uses the token embedding again."""
    if "output.weight" in tensors:
        dense = tensors.dense("output", config.n_vocab, config.n_embd)
    else:
        weight = tensors.matrix("token_embd.weight", config.n_vocab, config.n_embd)
        dense = Dense(weight, tensors.maybe_vector("output.bias", config.n_vocab))
    return Head(tensors.norm(norm, "output_norm", config.n_embd, config.norm_eps), dense, softcap=softcap)
