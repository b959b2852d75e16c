"""What some families add to attention: slopes, growing queries, sinks, norms of pieces; and a file that is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.backend import BackendOptions
from sis_core.backends.numpy.ops.norm import BoundNorm
from sis_core.block import Attention, Network, Norm, PositionScale
from sis_core.parts import alibi_slopes
from sis_core.quant import Weight
from sis_core.testing.faults.change import change
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.networks import VARIANTS, random_network


def test_slopes() -> None:
    np.testing.assert_allclose(alibi_slopes(8), 2.0 ** -np.arange(1.0, 9))
    np.testing.assert_allclose(alibi_slopes(6), 2.0 ** np.array([-2, -4, -6, -8, -1, -3.0]))  # 6 is no power of two
    np.testing.assert_allclose(alibi_slopes(2, max_bias=4.0), [0.25, 0.0625])


def test_queries_grow_by_steps() -> None:
    scale = PositionScale(0.1, 4)
    np.testing.assert_allclose(scale.factors(np.array([0, 3, 4, 12])), 1 + 0.1 * np.log([1, 1, 2, 4]))
    np.testing.assert_allclose(PositionScale(0.1, 4, offset=1).factors(np.array([2, 3])), 1 + 0.1 * np.log([1, 2]))


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_a_norm_of_pieces_is_one_of_each(kind: Any) -> None:
    random = np.random.default_rng(0)
    x, gain = random.standard_normal((3, 12)).astype(np.float32), random.standard_normal(12).astype(np.float32)
    whole = BoundNorm(Norm(kind, 1e-5, Weight.from_array("g", gain), pieces=3))(x)
    for i in range(0, 12, 4):
        one = BoundNorm(Norm(kind, 1e-5, Weight.from_array("g", gain[i : i + 4])))(x[:, i : i + 4])
        np.testing.assert_array_equal(whole[:, i : i + 4], one)


@pytest.mark.parametrize(
    "wrong", [{"sinks": Weight.from_array("s", np.ones(3, np.float32))}, {"alibi": np.ones(5, np.float32)}], ids=str
)
def test_as_many_sinks_and_slopes_as_heads(wrong: dict[str, Any]) -> None:
    if (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    network: Network = random_network(VARIANTS[0])
    assert kind().forward(network, range(2), BackendOptions()) is not None
    assert (
        kind().forward(change(network, Attention, lambda op: evolve(op, **wrong)), range(2), BackendOptions()) is None
    )
