"""What goes wrong with attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import evolve

from sis_core.block import (
    Attention,
    Dense,
    Network,
    Norm,
    find,
)
from sis_core.quant import Weight
from sis_core.testing.faults.change import Fault, every, setting
from sis_core.testing.faults.whole_text import wrong_attention


def _window(by: int) -> Callable[[Network], Network]:
    return every(Attention, lambda op: evolve(op, window=op.window + by) if op.window else op)


def _window_everywhere(network: Network) -> Network:
    windows = [op.window for op in find(network, Attention) if op.window]
    return setting(Attention, window=windows[0])(network) if windows else network


def _strided_heads(op: Attention) -> Attention:
    """Query head ``h`` reads key head ``h % n_head_kv``: the same as other query heads in each group."""
    if op.n_head_kv in (1, op.n_head):
        return op
    order = np.argsort(np.arange(op.n_head) % op.n_head_kv, kind="stable")
    columns = (order[:, None] * op.head_dim + np.arange(op.head_dim)).reshape(-1)
    bias = op.q.bias
    if bias is not None:
        bias = Weight.from_array(bias.name, bias.dequantize()[columns])
    q = Dense(Weight.from_array(op.q.weight.name, op.q.weight.dequantize()[columns]), bias)
    out = evolve(op.out, weight=Weight.from_array(op.out.weight.name, op.out.weight.dequantize()[:, columns]))
    return evolve(op, q=q, out=out)


def _no_bias_in_attention(op: Attention) -> Attention:
    if all(dense is None or dense.bias is None for dense in (op.q, op.k, op.v, op.out)):
        return op
    k, v = (evolve(dense, bias=None) if dense else None for dense in (op.k, op.v))
    q, out = evolve(op.q, bias=None), evolve(op.out, bias=None)
    return evolve(op, q=q, k=k, v=v, out=out)


def _one_slope(op: Attention) -> Attention:
    return op if op.alibi is None else evolve(op, alibi=np.full_like(op.alibi, op.alibi[0]))


def _other_pieces(op: Attention) -> Attention:
    def other(norm: Norm | None, n_head: int) -> Norm | None:
        wide = norm is not None and norm.weight is not None and norm.weight.n_cols == n_head * op.head_dim
        return evolve(norm, pieces=n_head if norm.pieces == 1 else 1) if norm and wide and n_head > 1 else norm

    q_norm, k_norm = other(op.q_norm, op.n_head), other(op.k_norm, op.n_head_kv)
    same = q_norm is op.q_norm and k_norm is op.k_norm
    return op if same else evolve(op, q_norm=q_norm, k_norm=k_norm)


FAULTS = (
    Fault("forgets the norms of queries and keys", setting(Attention, q_norm=None, k_norm=None)),
    Fault("forgets the scale of the scores", setting(Attention, scale=1.0)),
    Fault("scales scores by 1 / head_dim, not by the scale that it is told",
          every(Attention, lambda op: evolve(op, scale=1 / op.head_dim))),
    Fault("forgets the soft-cap of the scores", setting(Attention, softcap=None)),
    wrong_attention("lets a token see those after it: no causal mask", lambda op: True, causal=False),
    Fault("lets a token see only itself: keys and values of the tokens before it are not read",
          setting(Attention, window=1)),
    Fault("ignores the window", setting(Attention, window=None)),
    Fault("has a window that is one token too wide", _window(1)),
    Fault("has a window that is one token too narrow", _window(-1)),
    Fault("uses the window of one layer in all", _window_everywhere),
    Fault("lets query head h read key head h % n_head_kv, not h // (n_head / n_head_kv)",
          every(Attention, _strided_heads)),
    Fault("forgets the limit of queries, keys and values", setting(Attention, clamp=None)),
    Fault("forgets to scale queries by position", setting(Attention, q_scale=None)),
    Fault("ignores the slopes of ALiBi",
          every(Attention, lambda op: op if op.alibi is None else evolve(op, alibi=None))),
    Fault("gives all heads the slope of the first", every(Attention, _one_slope)),
    Fault("forgets the sinks", setting(Attention, sinks=None)),
    Fault("normalises each head where it should be all at once, or all at once where it should be each",
          every(Attention, _other_pieces)),
    Fault("forgets the biases of attention", every(Attention, _no_bias_in_attention)),
)  # fmt: skip
