"""Parts that model families share, each built from a file's config and tensors under GGUF's names.

Whether a file has q, k and v apart or in one tensor, biases or none, its own head or a tied one, is seen from its
tensors; what a family decides is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sis_core.arrays import F32
from sis_core.block import (
    Activation,
    Attention,
    Block,
    Dense,
    Embedding,
    FeedForward,
    Head,
    Norm,
    Op,
    Residual,
    Rope,
)
from sis_core.tensors import Tensors

if TYPE_CHECKING:
    from sis_core.architecture import ModelConfig

HeadNorm = bool | Literal["whole", "own"]
NEXTN = ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head_head", "shared_head_norm")
"""What a layer that predicts a further token has beside the tensors of an ordinary one, under ``blk.{i}.nextn.``."""


def has_head_norms(i: int, tensors: Tensors) -> bool:
    """Whether layer ``i`` has norms of its query and key heads, where that differs between models of a family."""
    return tensors.has_any(f"blk.{i}.attn_q_norm.weight", f"blk.{i}.attn_k_norm.weight")


def row_norm(config: ModelConfig, tensors: Tensors, stem: str) -> Norm:
    """A norm of rows ``(n_embd,)``, of the kind that the family has."""
    bias = config.norm == "layer" and config.norm_bias
    return tensors.norm(config.norm, stem, config.n_embd, config.norm_eps, bias=bias)


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
    softcap: float | None = None,
    bias: bool | None = None,
    head_norm: HeadNorm = False,
    fused: bool = False,
    **fields: Any,
) -> Attention:
    """Attention of layer ``i``, within the window that ``config.windows`` has for it.

    Args:
        scale: of the scores; by default ``1 / sqrt(head_dim)``.
        bias: required (True), refused (False), or used where the file has one (None).
        head_norm: whether queries and keys have RMS norms: of each head (True) or of all heads at once (``whole``); or,
            with weights for each head, layer norms (``own``).
        fused: the family's files usually have q, k and v in one tensor; which of the two is seen from the file.
        fields: others of `Attention`.
    """
    n, d, heads, heads_kv = config.n_embd, config.head_dim, config.n_head[i], config.n_head_kv[i]
    q, k, v = _projections(config, i, tensors, bias, fused)

    def norm(name: str, n_head: int) -> Norm | None:
        stem = f"blk.{i}.{name}"
        if head_norm == "own":
            return tensors.norm_of_pieces("layer", stem, n_head, d, config.norm_eps)
        width = n_head * d if head_norm == "whole" else d
        return tensors.norm("rms", stem, width, config.norm_eps) if head_norm else None

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
        q_norm=norm("attn_q_norm", heads),
        k_norm=norm("attn_k_norm", heads_kv),
        window=config.windows[i] if config.windows else None,
        softcap=softcap,
        **fields,
    )


def alibi_slopes(n_head: int, max_bias: float = 8.0) -> F32:
    """ALiBi's slope of each head, float32 ``(n_head,)``: a geometric sequence that ends in ``2 ** -max_bias``.

    Where the number of heads is no power of two, those of the power below come first, then every second of twice as
    many. Source: Press et al. 2022, "Train Short, Test Long", and its published code.
    """
    whole = 1 << (n_head.bit_length() - 1)
    slopes = 2.0 ** (-max_bias * np.arange(1, whole + 1) / whole)
    between = 2.0 ** (-max_bias * np.arange(1, 2 * whole + 1, 2) / (2 * whole))
    found: F32 = np.concatenate([slopes, between])[:n_head].astype(np.float32)
    return found


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
    attn_norm: str = "attn_norm",
    mlp_norm: str = "ffn_norm",
    post_norm: bool = False,
    parallel: bool = False,
    scale: float = 1.0,
) -> Block:
    """The layer of most families: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        attn_norm, mlp_norm: the tensors of the two norms.
        post_norm: whether what attention and feed-forward return is normalised too.
        parallel: ``x + attention(norm(x)) + mlp(norm(x))``; the norms may be the same.
        scale: a factor on what is added to x.
    """

    def branch(before: str, op: Op, after: str) -> tuple[Op, ...]:
        names = (before, after) if post_norm else (before,)
        norms = [row_norm(config, tensors, f"blk.{i}.{name}") for name in names]
        return norms[0], op, *norms[1:]

    first, second = branch(attn_norm, attention, "post_attention_norm"), branch(mlp_norm, mlp, "post_ffw_norm")
    residuals = ((first, second),) if parallel else ((first,), (second,))
    return Block(tuple(Residual(branches, scale) for branches in residuals), attention.state)


def post_norm_block(config: ModelConfig, i: int, tensors: Tensors, attention: Attention, mlp: Op) -> Block:
    """``x + norm(attention(x))``, then ``x + norm(mlp(x))``."""
    after, last = (row_norm(config, tensors, f"blk.{i}.{name}") for name in ("post_attention_norm", "post_ffw_norm"))
    return Block((Residual(((attention, after),)), Residual(((mlp, last),))), attention.state)


def ignore_nextn(i: int, tensors: Tensors) -> None:
    """Understand what makes layer ``i`` predict a further token, which changes nothing of the next one."""
    tensors.ignore(*(f"blk.{i}.nextn.{name}.weight" for name in NEXTN))


def output_head(config: ModelConfig, tensors: Tensors, *, scale: float = 1.0, softcap: float | None = None) -> Head:
    """Norm and ``scale`` times logits. A file without ``output.weight`` uses the token embedding again."""
    if "output.weight" in tensors:
        dense = tensors.dense("output", config.n_vocab, config.n_embd)
    else:
        weight = tensors.matrix("token_embd.weight", config.n_vocab, config.n_embd)
        dense = Dense(weight, tensors.maybe_vector("output.bias", config.n_vocab))
    return Head(row_norm(config, tensors, "output_norm"), dense, scale, softcap)
