"""What is packed, decoded and cut, by the memory there is: a backend whose needs are made up, in MiB."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import sis_llama

from sis_core import hookimpl
from sis_core.backend import Backend, BackendOptions
from sis_core.block import Network
from sis_core.errors import MemoryLimitError
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry

MIB = 1 << 20


class Hungry(Backend):
    """Packs 100, of which 60 can only be decoded by Python and take 15 in the file."""

    name, score = "hungry", 50

    def memory(self, network: Network, layers: range, options: BackendOptions) -> int:
        return (40 * (options.pack is not False) + 60 * (options.decode is not False)) * MIB

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        return (40 * (options.pack is False) + 15 * (options.decode is False)) * MIB


class Plugin:
    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [Hungry()]


REGISTRY = Registry.of(sis_llama, Plugin())


def opened(path: Path, spare: float | None, backend: str = "hungry", **options: bool) -> Model:
    """The model with ``spare`` MiB for its weights."""
    with open_model(Model, path, REGISTRY, backend="numpy") as model:
        base = model.fit.plan.cache + model.fit.plan.working
    limit = None if spare is None else base + int(spare * MIB)
    return open_model(Model, path, REGISTRY, backend=backend, memory_limit=limit, options=BackendOptions(**options))


@pytest.mark.parametrize(
    ("spare", "options", "pack", "decode"),
    [
        (100, {}, True, True),
        (99, {"decode": False}, True, False),
        (99, {}, True, False),  # read in place takes as much: only what is not decoded takes less
        (55, {}, True, False),
        (54, {"decode": True, "pack": False}, None, None),
        (54, {}, True, False),  # does not fit at all: of what cannot be dropped, 40 fit
        (40, {"pack": True}, True, False),
        (39, {}, False, False),
        (39, {"pack": True}, None, None),
        (60, {"pack": False, "decode": True}, False, True),
    ],
)
def test_the_rule(spare: float, options: dict[str, bool], pack: bool | None, decode: bool, random_model: Path) -> None:
    if pack is None:
        with pytest.raises(MemoryLimitError, match=r"packed \d+ \+ cache .* are free"):
            opened(random_model, spare, **options)
        return
    with opened(random_model, spare, **options) as model:
        assert (model.options.pack, model.options.decode) == (pack, decode)
        assert model.fit.plan.anonymous <= model.fit.limit
        assert model.fit.plan.packed == Hungry().memory(model.network, model.layers, model.options)


def test_what_is_said(random_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    def said(spare: float | None, backend: str = "hungry", **options: bool) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING), opened(random_model, spare, backend, **options) as model:
            return model.fit.layout

    assert said(None).startswith("weights are packed while the first tokens come: 1")
    assert said(None).endswith("MiB are free")
    assert not caplog.text
    assert said(None, pack=True) == "weights are packed: --pack says so"
    assert said(None, pack=False) == "weights are read in place: --no-pack says so"
    assert said(None, "numpy") == "weights are read in place: the backend packs none"
    text = said(56)
    assert text.startswith("weights that only Python decodes are decoded in every step, which is slow: otherwise")
    assert "the model needs packed 100 + cache" in text
    assert text in caplog.text
    said(39)
    assert "steps will wait for the disk" in caplog.text


def test_another_backend_gets_a_choice_of_its_own(random_model: Path) -> None:
    with opened(random_model, 56, "numpy") as model, model.with_backend("hungry") as other:
        assert model.options.decode is True
        assert other.options.decode is False
        assert other.config.n_ctx == model.config.n_ctx
