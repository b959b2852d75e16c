"""Experts: what a file says of them, and which ones a row uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.backends.numpy.layer import ReferenceLayer
from sis_core.backends.numpy.linear import ReferenceLinear
from sis_core.backends.numpy.routing import Routing
from sis_core.block import Block, Dense
from sis_core.errors import BackendError, ModelError
from sis_core.expert_parts import ExpertSizes
from sis_core.experts import Experts, Stack
from sis_core.metadata import Metadata
from sis_core.quant import Weight
from sis_core.step import Plan
from sis_core.tensors import Tensors

KEYS = {"expert_count": 8, "expert_used_count": 2, "feed_forward_length": 32}
NO_PLAN = Plan(np.zeros(1, np.int32), None, np.zeros(1, np.int32), (), 32)


def sizes(**keys: Any) -> ExpertSizes | None:
    return ExpertSizes.read(Metadata({f"moe.{key}": value for key, value in (KEYS | keys).items()}, "moe", "file"))


def weight(*shape: int, seed: int = 0) -> Weight:
    return Weight.from_array("blk.0.any", np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def experts(**choice: Any) -> Experts:
    up, down = Stack(weight(8, 16, 12, seed=1)), Stack(weight(8, 12, 16, seed=2))
    return Experts(Dense(weight(8, 12)), up, down, "silu", **({"n_used": 2} | choice))


def routed(logits: Any, **choice: Any) -> tuple[list[list[int]], Any]:
    ids, weights = Routing.of(experts(**choice))(np.array(logits, np.float32))
    return ids.tolist(), weights


class TestKeys:
    def test_absent(self) -> None:
        assert sizes(expert_count=0) is None

    def test_own_width_and_that_of_the_shared_one(self) -> None:
        found = sizes(expert_feed_forward_length=48, expert_shared_count=2)
        assert found
        assert (found.n_ff, found.n_ff_shared) == (48, 96)
        found = sizes(expert_shared_feed_forward_length=80)
        assert found
        assert (found.n_ff, found.n_ff_shared) == (32, 80)

    def test_gating_of_the_file_comes_before_the_family_s(self) -> None:
        found = sizes(expert_gating_func=2, expert_weights_norm=False, expert_weights_scale=2.5)
        assert found
        assert (found.gating, found.renormalise, found.scale) == ("sigmoid", False, 2.5)

    def test_which_layers_have_them(self) -> None:
        found = sizes(leading_dense_block_count=1, interleave_moe_layer_step=2)
        assert found
        assert [i for i in range(8) if found.in_layer(i)] == [1, 3, 5, 7]

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"expert_used_count": 9}, "expert_used_count is 9, but must be from 1 to 8"),
            ({"expert_gating_func": 7}, "expert_gating_func is 7, which no installed family implements"),
            ({"expert_group_count": 3}, "8 experts in 3 groups"),
            ({"expert_group_count": 4, "expert_group_used_count": 5}, "expert_group_used_count is 5"),
            (
                {"expert_group_count": 4, "expert_group_used_count": 1, "expert_used_count": 3},
                "expert_used_count is 3, but must be from 1 to 2",
            ),
            ({"expert_count": 1 << 20}, "expert_count is 1048576"),
            ({"expert_weights_norm": "yes"}, "expert_weights_norm must be true or false"),
        ],
    )
    def test_contradictions(self, keys: dict[str, Any], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            sizes(**keys)

    def test_a_stack_of_another_shape(self) -> None:
        tensors = Tensors({"blk.0.ffn_up_exps.weight": weight(8, 16, 12)}, "file")
        with pytest.raises(ModelError, match=r"has shape \(8, 16, 12\), but the metadata call for \(8, 32, 12\)"):
            tensors.stack("blk.0.ffn_up_exps", 8, 32, 12)


class TestRouting:
    def test_of_equal_scores_the_first(self) -> None:
        ids, weights = routed([[0, 1, 1, 1, 0, 1, 0, 0]], n_used=3)
        assert ids == [[1, 2, 3]]
        np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)

    def test_softmax_of_all_and_of_the_chosen(self) -> None:
        logits = np.log([[1, 2, 3, 4, 0.5, 0.5, 0.5, 0.5]])
        ids, weights = routed(logits, renormalise=False)
        assert ids == [[3, 2]]
        np.testing.assert_allclose(weights, [[4 / 12, 3 / 12]], rtol=1e-6)
        for choice in ({"gating": "softmax_weight", "renormalise": False}, {"renormalise": True}):
            np.testing.assert_allclose(routed(logits, **choice)[1], [[4 / 7, 3 / 7]], rtol=1e-6)

    def test_sparse_mixer_shares_with_those_that_are_near(self) -> None:
        ids, weights = routed([[1.0, 0.99, 0.97, -1.0, 0, 0, 0, 0]], gating="sparse_mixer", renormalise=False)
        assert ids == [[0, 1]]  # 0.97 is more than a fiftieth below both
        np.testing.assert_allclose(weights, [[1 / (1 + np.exp(-0.01)), 1]], rtol=1e-5)

    def test_a_bias_decides_and_does_not_weigh(self) -> None:
        bias = Weight.from_array("bias", np.array([0, 0, 0, 0, 0, 0, 1, 2], np.float32))
        ids, weights = routed(np.zeros((1, 8)), gating="sigmoid", selection_bias=bias, renormalise=False, scale=3.0)
        assert ids == [[7, 6]]
        np.testing.assert_allclose(weights, 1.5)

    def test_a_group_counts_by_its_best_two(self) -> None:
        logits = [[9, 0, 0, 0, 6, 6, 5, 5]]  # the best expert stands alone in its group
        ids, _ = routed(logits, gating="softmax_weight", n_group=4, n_group_used=1)
        assert ids == [[4, 5]]
        ids, _ = routed(logits, gating="softmax_weight", n_group=4, n_group_used=2, n_used=3)
        assert ids == [[4, 5, 6]]

    def test_zeros_that_are_renormalised(self) -> None:
        _, weights = routed(np.full((1, 8), -1000.0), gating="sigmoid")
        assert np.isfinite(weights).all()


@pytest.mark.parametrize("scale_input", [False, True])
def test_the_sum_of_each_row_s_experts(scale_input: bool) -> None:
    op = experts(gate=Stack(weight(8, 16, 12, seed=3)), gating="sigmoid", scale_input=scale_input)
    x = np.random.default_rng(5).standard_normal((7, 12)).astype(np.float32)
    found = ReferenceLayer.of(Block((op,)), ReferenceLinear)(x, NO_PLAN, None)
    assert op.gate
    router, gate, up, down = (
        w.dequantize().astype(np.float64) for w in (op.router.weight, op.gate.weight, op.up.weight, op.down.weight)
    )
    for row, values in zip(x.astype(np.float64), found, strict=True):
        score = 1 / (1 + np.exp(-router @ row))
        wanted = np.zeros(12)
        for expert in sorted(range(8), key=lambda e: -score[e])[:2]:
            share = score[expert] / np.sort(score)[-2:].sum()
            given = row * share if scale_input else row
            g = gate[expert] @ given
            y = down[expert] @ (g / (1 + np.exp(-g)) * (up[expert] @ given))
            wanted += y if scale_input else y * share
        np.testing.assert_allclose(values, wanted, atol=1e-4)


def test_an_activation_that_needs_a_gate() -> None:
    for op in (evolve(experts(), activation=name) for name in ("swiglu_oai", "swish")):
        with pytest.raises(BackendError, match="no backend knows the activation"):
            ReferenceLayer.of(Block((op,)), ReferenceLinear)
