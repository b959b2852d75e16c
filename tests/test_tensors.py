"""Tensors by role: shapes, slices, placeholders, what is left over, and other names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sis_core.errors import ModelError
from sis_core.quant import BF16Format, F16Format, F32Format, QuantFormat, Weight
from sis_core.tensors import Tensors, derived, gguf_names, reordered, transposed


def weight(name: str, *shape: int, format: QuantFormat | None = None) -> Weight:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Weight.from_array(name, values, format)


def tensors(*weights: Weight, **options: Any) -> Tensors:
    return Tensors({w.name: w for w in weights}, "m.gguf", **options)


class Blocks(F16Format):
    name, type_id = "Q9_9", None


def test_shapes_are_checked_as_they_are_taken() -> None:
    found = tensors(weight("a", 2, 3), weight("v", 4))
    assert found.matrix("a", 2, 3).shape == (2, 3)
    assert found.vector("v", 4).shape == (4,)
    with pytest.raises(ModelError, match=r"m\.gguf: tensor a has shape \(2, 3\), but the metadata call for \(3, 2\)"):
        found.matrix("a", 3, 2)
    with pytest.raises(ModelError, match=r"tensor b \(1,\) is missing\. Convert"):
        found.vector("b", 1)


def test_vectors_are_never_quantised() -> None:
    with pytest.raises(ModelError, match=r"v is a vector in the block format Q9_9; vectors must be F32, F16 or BF16"):
        tensors(weight("v", 4, format=Blocks())).vector("v", 4)
    assert tensors(weight("v", 4, format=F16Format())).vector("v", 4).format.name == "F16"


def test_biases() -> None:
    found = tensors(weight("q.weight", 2, 3), weight("q.bias", 2), weight("k.weight", 2, 3))
    assert found.dense("q", 2, 3).bias is not None
    assert found.dense("k", 2, 3).bias is None
    assert found.dense("q", 2, 3, bias=False).bias is None
    with pytest.raises(ModelError, match=r"tensor k\.bias \(2,\) is missing"):
        found.dense("k", 2, 3, bias=True)
    assert found.maybe_vector("k.bias", 2) is None
    assert found.maybe_matrix("k.other", 2, 3) is None
    assert found.maybe_matrix("k.weight", 2, 3) is not None


def test_fused_parts_are_views() -> None:
    found = tensors(weight("qkv.weight", 6, 2), weight("qkv.bias", 6))
    parts = found.fused("qkv", (3, 2, 1), 2)
    assert [p.weight.shape for p in parts] == [(3, 2), (2, 2), (1, 2)]
    assert all(np.shares_memory(p.weight.raw, parts[0].weight.read()) for p in parts)
    assert [p.bias.dequantize().tolist() for p in parts if p.bias] == [[0, 1, 2], [3, 4], [5]]
    assert found.unread() == []
    with pytest.raises(ModelError, match=r"qkv\.weight has shape \(6, 2\), but the metadata call for \(7, 2\)"):
        found.fused("qkv", (4, 2, 1), 2)


def test_a_layer_norms_bias_is_used_where_there_is_one() -> None:
    found = tensors(weight("n.weight", 3), weight("m.weight", 3), weight("m.bias", 3))
    assert found.norm("layer", "n", 3, 1e-5).bias is None
    assert found.norm("layer", "m", 3, 1e-5).bias is not None
    with pytest.raises(ModelError, match=r"tensor n\.bias \(3,\) is missing"):
        found.norm("layer", "n", 3, 1e-5, bias=True)
    unread = tensors(weight("m.weight", 3), weight("m.bias", 3))
    assert unread.norm("layer", "m", 3, 1e-5, bias=False).bias is None
    assert unread.unread() == ["m.bias"]


def test_a_tensor_of_three_dimensions() -> None:
    found = tensors(weight("conv", 4, 2, 3))
    taken = found.tensor("conv", (4, 2, 3))
    assert taken.dequantize().shape == (4, 2, 3)
    assert taken.dequantize()[1, 0].tolist() == [6, 7, 8]
    assert found.unread() == []
    with pytest.raises(ModelError, match=r"conv has shape \(4, 2, 3\), but the metadata call for \(2, 4, 3\)"):
        found.tensor("conv", (2, 4, 3))
    with pytest.raises(ModelError, match=r"tensor other \(2, 4, 3\) is missing"):
        found.tensor("other", (2, 4, 3))


def test_norms() -> None:
    found = tensors(weight("n.weight", 3), weight("n.bias", 3))
    assert found.norm("rms", "n", 3, 1e-5).bias is None
    assert found.unread() == ["n.bias"]
    assert found.norm("layer", "n", 3, 1e-5).bias is not None
    assert found.unread() == []


def test_placeholders(caplog: pytest.LogCaptureFixture) -> None:
    found = tensors(degrade=True)
    assert not found.matrix("a", 2, 2).dequantize().any()
    assert found.norm("rms", "n", 3, 1e-5).weight.dequantize().tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert found.degraded == 2
    assert "m.gguf: tensor a is missing; using 0 everywhere" in caplog.text


def test_what_nobody_takes() -> None:
    names = ["b.weight", "blk.0.attn_rot_embd.weight", "x.rotary_emb.inv_freq", "h.0.attn.bias", "c.weight", "d"]
    found = tensors(*(weight(name, 2) for name in names))
    found.vector("c.weight", 2)
    found.ignore("d")
    assert found.unread() == ["b.weight"]
    assert derived("blk.0.attn_rot_embd.weight")
    assert derived("h.0.attn.bias")
    assert not derived("blk.0.attn_q.bias")
    assert not derived("h.0.attn.c_attn.bias")


def test_layers() -> None:
    found = tensors(weight("blk.0.a", 1), weight("blk.10.a", 1), weight("blk.x", 1), weight("output.weight", 1))
    assert [i for i in range(12) if found.has_layer(i)] == [0, 10]


def test_names_of_hugging_face(caplog: pytest.LogCaptureFixture) -> None:
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.1.self_attn.q_proj.bias": "blk.1.attn_q.bias",
        "model.layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq": "blk.0.attn_rot_embd",
        "something.else": "something.else",
    }
    roles = gguf_names({name: weight(name, 1) for name in names}, "llama", 2, "m.gguf")
    assert {found.name: role for role, found in roles.items()} == names
    assert "m.gguf: tensor names are not GGUF's" in caplog.text


def test_names_that_are_not_changed() -> None:
    own = {"token_embd.weight": weight("token_embd.weight", 1), "model.norm.weight": weight("model.norm.weight", 1)}
    assert list(gguf_names(own, "llama", 1)) == list(own)
    strange = {"model.norm.weight": weight("model.norm.weight", 1)}
    assert list(gguf_names(strange, "no such family", 1)) == list(strange)


def test_reordered_rows() -> None:
    rows = reordered(weight("m", 3, 2), np.array([2, 0, 1], np.int32))
    assert (rows.name, rows.shape, rows.dequantize().tolist()) == ("m", (3, 2), [[4, 5], [0, 1], [2, 3]])
    assert reordered(weight("v", 3), np.array([1, 2, 0], np.int32)).dequantize().tolist() == [1, 2, 0]
    assert rows.read() is rows.read()  # one copy, made when first asked for


@pytest.mark.parametrize("format", [F32Format(), F16Format(), BF16Format()])
def test_a_matrix_by_columns(format: QuantFormat) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = transposed(Weight.from_array("m", values, format))
    assert (turned.name, turned.format.name, turned.shape) == ("m", format.name, (3, 2))
    np.testing.assert_array_equal(turned.dequantize(), values.T)
    assert turned.read() is turned.read()
