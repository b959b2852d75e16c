"""Parts that families share: what is seen from the tensors, and what a missing one is called."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sis_core.architecture import ModelConfig
from sis_core.block import Residual
from sis_core.errors import ModelError
from sis_core.parts import feed_forward, gated_feed_forward, output_head, pre_norm_block, self_attention
from sis_core.quant import Weight
from sis_core.tensors import Tensors

CONFIG = ModelConfig("x", 1, 8, 5, 16, 16, (4,), (2,), (12,), 2, 1e-5)


def tensors(**shapes: tuple[int, ...]) -> Tensors:
    """Zeros under GGUF's names: ``q`` for ``blk.0.attn_q.weight``, ``q_bias`` for its bias."""
    stems = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "qkv": "attn_qkv", "o": "attn_output"}
    stems |= {"up": "ffn_up", "down": "ffn_down", "gate": "ffn_gate", "n1": "attn_norm", "n2": "ffn_norm"}
    weights = {}
    for key, shape in shapes.items():
        short, _, bias = key.partition("_")
        name = f"blk.0.{stems[short]}.{bias or 'weight'}" if short in stems else key.replace("__", ".")
        weights[name] = Weight.from_array(name, np.zeros(shape, np.float32))
    return Tensors(weights)


APART = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8)}
FUSED = {"qkv": (16, 8), "o": (8, 8)}


@pytest.mark.parametrize("fused", [True, False])
def test_projections_apart_or_in_one(fused: bool) -> None:
    """Which of the two a file has is seen from it, whatever the family's files usually have."""
    for shapes in (APART, FUSED):
        found = self_attention(CONFIG, 0, tensors(**shapes), fused=fused)
        assert [dense.weight.shape for dense in (found.q, found.k, found.v)] == [(8, 8), (4, 8), (4, 8)]
        assert (found.n_head, found.n_head_kv, found.scale) == (4, 2, 2**-0.5)
    usual = "attn_qkv" if fused else "attn_q"
    with pytest.raises(ModelError, match=rf"tensor blk\.0\.{usual}\.weight .* is missing"):
        self_attention(CONFIG, 0, tensors(o=(8, 8)), fused=fused)


def test_biases_are_used_where_they_are_or_required() -> None:
    biased = tensors(**APART, q_bias=(8,), o_bias=(8,))
    found = self_attention(CONFIG, 0, biased)
    assert [dense.bias is not None for dense in (found.q, found.k, found.out)] == [True, False, True]
    with pytest.raises(ModelError, match=r"tensor blk\.0\.attn_k\.bias \(4,\) is missing"):
        self_attention(CONFIG, 0, biased, bias=True)
    with pytest.raises(ModelError, match=r"tensor blk\.0\.ffn_up\.bias \(12,\) is missing"):
        feed_forward(CONFIG, 0, tensors(up=(12, 8), down=(8, 12)), "gelu", bias=True)


def test_gate_and_up() -> None:
    apart = gated_feed_forward(CONFIG, 0, tensors(up=(12, 8), gate=(12, 8), down=(8, 12)), "silu")
    assert apart.gate is not None
    one = gated_feed_forward(CONFIG, 0, tensors(up=(24, 8), down=(8, 12)), "silu", fused=True)
    assert one.gate is not None
    assert (one.gate.weight.first_row, one.up.weight.first_row) == (0, 12)
    with pytest.raises(ModelError, match=re.escape("tensor blk.0.ffn_gate.weight (12, 8) is missing")):
        gated_feed_forward(CONFIG, 0, tensors(up=(12, 8), down=(8, 12)), "silu")


@pytest.mark.parametrize("parallel", [True, False])
def test_blocks_in_turn_or_side_by_side(parallel: bool) -> None:
    found = tensors(**APART, up=(12, 8), down=(8, 12), n1=(8,), n2=(8,))
    block = pre_norm_block(
        CONFIG, 0, found, self_attention(CONFIG, 0, found), feed_forward(CONFIG, 0, found, "relu"), parallel=parallel
    )
    assert [len(op.branches) for op in block.ops if isinstance(op, Residual)] == ([2] if parallel else [1, 1])
    assert block.state is not None
    assert found.unread() == []


def test_tied_and_separate_heads() -> None:
    common = {"token_embd__weight": (5, 8), "output_norm__weight": (8,)}
    assert output_head(CONFIG, tensors(**common)).dense.weight.name == "token_embd.weight"
    separate = tensors(**common, output__weight=(5, 8), output__bias=(5,))
    head = output_head(CONFIG, separate, softcap=3.0)
    assert (head.dense.weight.name, head.dense.bias is not None, head.softcap) == ("output.weight", True, 3.0)
