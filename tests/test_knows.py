"""A backend can be asked what it knows: the answer is what binding would show, and nothing is bound for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from sis_core.backend import Backend, BackendOptions
from sis_core.backends.native import NativeBackend
from sis_core.backends.numpy import NumpyBackend, ReferenceLayer, ReferenceLinear
from sis_core.backends.stub import StubBackend
from sis_core.block import Block, Network, Norm
from sis_core.quant import Weight
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.kernels.strangers import Own, Plain
from sis_core.testing.networks import VARIANTS, random_network, with_format

KIND = kind_of_this_machine()
OPTIONS = [
    BackendOptions(), BackendOptions(pack=False), BackendOptions(decode=False), BackendOptions(kv_type="q8_0"),
    BackendOptions(kv_type="strange"),
]  # fmt: skip


class Layers(Backend):
    name = "layers"

    def layer(self, block: Block, options: BackendOptions) -> Any:
        return ReferenceLayer.of(block, ReferenceLinear) if len(block.ops) > 1 else None


def backends() -> list[Backend]:
    return [NumpyBackend(), StubBackend(), Layers(), *([KIND()] if KIND else [])]


def networks() -> Iterator[Network]:
    for variant in VARIANTS:
        yield random_network(variant)
    for format in (PlainWritten(), OwnWritten()):
        yield random_network(with_format(VARIANTS[0], format))
    good = random_network(VARIANTS[0])
    norm = good.blocks[0].ops[0]
    yield evolve(good, head=evolve(good.head, norm=Norm("strange", 1e-5, None)))
    yield evolve(good, n_vocab=good.n_vocab + 1)
    yield evolve(good, blocks=(*good.blocks, evolve(good.blocks[0], ops=(norm, norm))))  # a state without an attention


class Writes(Plain):
    def quantize(self, values: Any) -> Any:
        return np.clip(np.rint(values * 8), -127, 127).astype(np.int8).view(np.uint8)


class PlainWritten(Writes):
    pass


class OwnWritten(Writes, Own):
    pass


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: str(backend.name))
@pytest.mark.parametrize("options", OPTIONS, ids=["default", "in place", "not decoded", "q8_0", "strange"])
def test_the_answer_is_what_binding_shows(backend: Backend, options: BackendOptions) -> None:
    answers = set()
    for network in networks():
        known = backend.knows(network, options)
        assert known == (backend.forward(network, range(network.n_layer), options) is not None)
        answers.add(known)
        for block in network.blocks:
            assert backend.knows(block, options) == (backend.layer(block, options) is not None)
        for weight in network.weights():
            assert backend.knows(weight, options) == (backend.linear(weight, options) is not None), weight
    if isinstance(backend, NativeBackend):
        assert answers == ({False} if options.kv_type == "strange" else {True, False})


@pytest.mark.skipif(KIND is None, reason="no native backend for this machine")
def test_nothing_is_read_or_bound_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KIND is not None
    backend = KIND()

    def unwanted(*given: object) -> None:
        raise AssertionError("asked for bytes")

    network = random_network(VARIANTS[0])
    monkeypatch.setattr(Weight, "raw", property(unwanted))
    monkeypatch.setattr(Weight, "raw_rows", unwanted)
    monkeypatch.setattr("sis_core.backends.native.weights.Arena", unwanted)
    assert backend.knows(network, BackendOptions())
    assert all(backend.knows(block, BackendOptions()) for block in network.blocks)
    assert backend.knows(network.head.dense.weight, BackendOptions())
    with pytest.raises(AssertionError, match="asked for bytes"):
        backend.linear(network.head.dense.weight, BackendOptions())


def test_grains_that_a_backend_does_not_offer_are_not_asked() -> None:
    network = random_network(VARIANTS[0])
    assert not any(NumpyBackend().knows(r, BackendOptions()) for r in (network, network.blocks[0], *network.weights()))
    assert not Layers().knows(network.head.dense.weight, BackendOptions())
