"""A model whose layers are bound in parts: each reads its own weights only, and together they are the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from tiny_models import metadata, tensors, write_model

import sis_core
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.block import Block
from sis_core.errors import BackendError, ModelError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.model import Model
from sis_core.step import Batch, Plan, Run
from sis_core.testing.kernels import kind_of_this_machine
from sis_core.testing.networks import VARIANTS, random_network

N_LAYER = 4
PARTS = (range(1), range(1, 3), range(3, 4))
RUNS = ((Run(0, 0, 40), Run(3, 0, 7)), (Run(3, 7, 1), Run(0, 40, 1)), (Run(0, 41, 2),))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = metadata(llama__block_count=N_LAYER)
    return write_model(tmp_path_factory.mktemp("layers") / "four.gguf", values, tensors(n_layer=N_LAYER))


@pytest.fixture(params=["numpy", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numpy":
        return "numpy"
    if (kind := kind_of_this_machine()) is None:
        pytest.skip("no native backend works on this machine")
    return kind.name


def batches() -> Iterator[Batch]:
    random = np.random.default_rng(3)
    for runs in RUNS:
        n = sum(run.n for run in runs)
        yield Batch(random.integers(0, 256, n), runs, [0, n - 1])


def test_parts_compose_bit_for_bit(path: Path, backend: str) -> None:
    with ExitStack() as stack:
        load = lambda layers: stack.enter_context(sis_core.load(path, backend=backend, layers=layers))  # noqa: E731
        whole, parts = load(None), [load(layers) for layers in PARTS]
        assert [part.layers for part in parts] == list(PARTS)
        assert [len(part.grains) for part in parts] == [1, 2, 1]
        cache, caches = whole.new_cache(128), [part.new_cache(128) for part in parts]
        assert sum(c.nbytes for c in caches) == 0
        for batch in batches():
            rows = batch
            for part, own in zip(parts[:-1], caches, strict=False):
                everything = evolve(rows, outputs=range(batch.n), want="hidden")
                rows = evolve(batch, hidden=part.step(everything, own).values)  # the tokens go along
            found = parts[-1].step(rows, caches[-1]).values
            np.testing.assert_array_equal(found, whole.step(batch, cache).values)
        assert sum(c.nbytes for c in caches) == cache.nbytes


def test_a_part_reads_and_counts_its_own_weights(path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    for name in ("raw", "copy"):
        whole_way = getattr(GGUFFile, name)

        def noting(file: GGUFFile, tensor: str, *more: int, way: Callable[..., object] = whole_way) -> object:
            read.add(tensor)
            return way(file, tensor, *more)

        monkeypatch.setattr(GGUFFile, name, noting)
    counted = 0
    for layers in PARTS:
        read.clear()
        with sis_core.load(path, backend=backend, layers=layers, pack=True, gradual=False) as part:
            counted += part.fit.plan.packed + part.fit.plan.weights
            hidden = np.zeros((2, 32), np.float32) if layers.start else None
            part.step(Batch([1, 2], (Run(0, 0, 2),), [0], hidden=hidden), part.new_cache(32))
            own = {weight.name for weight in part.network.weights(layers)}
        assert read == own, layers
    with sis_core.load(path, backend=backend, pack=True, gradual=False) as whole:
        assert counted == whole.fit.plan.packed + whole.fit.plan.weights


def test_switching_keeps_the_part(path: Path) -> None:
    with sis_core.load(path, backend="stub", layers=range(1, 3)) as part, part.with_backend("numpy") as other:
        assert isinstance(other, Model)
        assert other.layers == range(1, 3)
        assert other.grains == ("numpy layer",) * 2


@pytest.mark.parametrize("layers", [range(0), range(3, 6), range(-1, 2), range(0, 4, 2), range(2, 0, -1)], ids=str)
def test_layers_that_are_not_there(path: Path, layers: range) -> None:
    with pytest.raises(ModelError, match=r"four.gguf: it has layers 0 to 3, not range"):
        sis_core.load(path, layers=layers)


def test_a_state_is_not_shared_over_ranges() -> None:
    network = random_network(VARIANTS[0])
    first, last = network.blocks
    shared = evolve(network, blocks=(first, Block(last.ops, None, reads_state_of=0)))
    with pytest.raises(BackendError, match="layer 1 reads the state of layer 0"):
        bind(shared, [], BackendOptions(), range(1, 2))


def test_every_stage_knows_the_tokens() -> None:
    """An op of a later stage that reads the step's tokens, as embeddings of a layer do."""

    class ByToken:
        def compute(self, hidden: np.ndarray, plan: Plan, state: object) -> np.ndarray:
            assert plan.tokens is not None
            return hidden + plan.tokens[:, None]

    network = random_network(VARIANTS[0])
    network = evolve(network, blocks=(*network.blocks, Block((ByToken(),))))  # type: ignore[arg-type]
    given = np.ones((3, network.n_embd), np.float32)
    batch = Batch([4, 5, 6], (Run(0, 0, 3),), range(3), "hidden", hidden=given)
    plain = bind(evolve(network, head=evolve(network.head, norm=None)), [], BackendOptions(), range(2, 3))
    found = plain.step(batch, plain.new_cache("f32", 64)).values
    np.testing.assert_array_equal(found[:, 0], [5, 6, 7])
