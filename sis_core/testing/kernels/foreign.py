"""Networks with formats and ops of strangers in them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.arrays import F32, U8
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.native import NativeBackend
from sis_core.block import Attention, Dense, FeedForward, Network, Residual
from sis_core.quant import QuantFormat
from sis_core.step import Batch, Plan
from sis_core.testing.kernels.shared import Shared
from sis_core.testing.kernels.strangers import Decoded, Own, Plain, Prepared
from sis_core.testing.kernels.weights import format_of, random_rows, weight_of
from sis_core.testing.networks import VARIANTS, random_network, with_format


def _with_activation(op: Any, activation: Any) -> Any:
    chains = tuple(
        tuple(evolve(o, activation=activation) if isinstance(o, FeedForward) else o for o in branch)
        for branch in op.branches
    )
    return evolve(op, branches=chains)


def _inputs_of(network: Network, format: QuantFormat, other: str) -> int:
    """How many inputs linears of a format read in a step, those in two forms counted twice."""

    def groups(op: Any) -> list[list[Dense]]:
        match op:
            case Attention():
                return [[dense for dense in (op.q, op.k, op.v) if dense], [op.out]]
            case FeedForward():
                return [[op.up, *([op.gate] if op.gate else [])], [op.down]]
            case Dense():
                return [[op]]
            case Residual():
                return [g for branch in op.branches for inner in branch for g in groups(inner)]
            case _:
                return []

    listed = [g for block in network.blocks for op in block.ops for g in groups(op)] + [[network.head.dense]]
    forms = [{bool(other) and d.weight.name.endswith(other) for d in g if d.weight.format is format} for g in listed]
    return sum(map(len, forms))


class Foreign(Shared):
    """What a backend did not bring."""

    def test_a_whole_network_of_strangers(self, backend: NativeBackend) -> None:
        """All three rungs keep the one call a step."""

        class Encoded(Plain):
            def quantize(self, values: F32) -> U8:
                return np.clip(np.rint(values * 8), -127, 127).astype(np.int8).view(np.uint8)

        for base in (Plain, Decoded, Own):
            format = type("Encoded" + base.__name__, (Encoded, base), {})()
            network = random_network(with_format(VARIANTS[0], format))
            tested, wanted = bind(network, [backend], BackendOptions()), bind(network, [], BackendOptions())
            assert set(tested.grains) == {f"{backend.name} forward"}
            batch = Batch.of(list(range(9)), outputs=range(9))
            found = tested.step(batch, tested.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted.step(batch, wanted.new_cache("f32", 32)).values, rtol=0, atol=2e-2)

    @pytest.mark.parametrize("other", ["", "attn_k"], ids=["one form", "two forms"])
    def test_rows_are_prepared_once_for_all_that_share_them(self, backend: NativeBackend, other: str) -> None:
        class Encoded(Prepared):
            def quantize(self, values: F32) -> U8:
                return np.clip(np.rint(values * 8), -127, 127).astype(np.int8).view(np.uint8)

        format = Encoded()
        format.other = other
        for variant in self.variants:
            format.rows.clear()
            network = random_network(with_format(variant, format))
            wanted, tested = bind(network, [], BackendOptions()), bind(network, [backend], BackendOptions(n_threads=2))
            assert set(tested.grains) == {f"{backend.name} forward"}, variant.name
            batch = Batch.of(list(range(25)), outputs=range(25))
            true = wanted.step(batch, wanted.new_cache("f32", 32)).values
            found = tested.step(batch, tested.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, true, rtol=0, atol=2e-2, err_msg=variant.name)
            if variant.chooses:  # each expert prepares the rows that it was sent
                continue
            rows = sum(n for _, _, n in format.rows)
            assert rows == 25 * _inputs_of(network, format, other), variant.name

    def test_a_linear_of_its_own_waits_for_the_rows_that_it_reads(self, backend: NativeBackend) -> None:
        random, network = np.random.default_rng(5), random_network(VARIANTS[0])
        n = network.n_embd
        wide = weight_of(format_of("F32"), random_rows(format_of("F32"), 4096, n, random), n)
        narrow = weight_of(Own(), random.integers(-8, 8, (n, 4096), np.int8).view(np.uint8), 4096)
        block = evolve(network.blocks[0], ops=(Residual(((Dense(wide), Dense(narrow)),)),), state=None)
        network = evolve(network, blocks=(block,))
        batch = Batch.of(list(range(3)), outputs=range(3))
        reference = bind(network, [], BackendOptions())
        wanted = reference.step(batch, reference.new_cache("f32", 32)).values
        forward = bind(network, [backend], BackendOptions(n_threads=3))
        assert forward.grains == (f"{backend.name} forward",)
        for _ in range(20):
            found = forward.step(batch, forward.new_cache("f32", 32)).values
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())

    def test_an_unknown_op_falls_to_the_next_grain(
        self, backend: NativeBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Double:
            def compute(self, hidden: F32, plan: Plan, state: object) -> F32:
                return hidden * 2

        network = random_network(VARIANTS[0])
        first = evolve(network.blocks[0], ops=(*network.blocks[0].ops, Double()))  # type: ignore[arg-type]
        network = evolve(network, blocks=(first, *network.blocks[1:]))
        with caplog.at_level(logging.INFO):
            forward = bind(network, [backend], BackendOptions())
        assert forward.grains == (f"numpy layer + {backend.name} linear", f"{backend.name} layer")
        assert [r.message for r in caplog.records] == [
            f"{backend.name} does not know the op Double: layers one by one, and those it does not know by the linear"
        ]
        batch = Batch.of(list(range(9)), outputs=range(9))
        found = forward.step(batch, forward.new_cache("f32", 32)).values
        reference = bind(network, [], BackendOptions())
        wanted = reference.step(batch, reference.new_cache("f32", 32)).values
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
        strange = evolve(network.blocks[1], ops=(_with_activation(network.blocks[1].ops[-1], "sine"),))
        assert backend.layer(strange, BackendOptions()) is None
