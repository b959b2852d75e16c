"""Layers in stages, on machines that are threads: the bits of one process, whatever is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import metadata, tensors, write_model

from sis_core import LanguageModel, Registry, hookimpl, load
from sis_core.cli.main import group
from sis_core.cluster import Cluster
from sis_core.errors import BackendError, LostError, MemoryLimitError, ModelError, PluginError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.recipe import Recipe
from sis_core.stages.backend import free_nbytes
from sis_core.stages.cache import StagedCache
from sis_core.stages.forward import ROWS
from sis_core.stages.split import split
from sis_core.stages.stage import Stage
from sis_core.step import Batch, Run
from sis_core.testing.machines import Threads

N_LAYER = 4


class Here(Cluster):
    name = "threads"

    def __init__(self) -> None:
        self.machines = Threads(2)

    def join(self, address: str = "") -> Threads:
        return self.machines


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = metadata(llama__block_count=N_LAYER)
    return write_model(tmp_path_factory.mktemp("stages") / "four.gguf", values, tensors(n_layer=N_LAYER))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Here:
    found = Here()
    monkeypatch.setattr("sis_core.stages.backend.the_cluster", lambda registry: found)
    return found


@pytest.fixture
def one(path: Path) -> Iterator[LanguageModel]:
    with load(path, n_ctx=512, batch_invariant=True) as model:
        yield model


@pytest.fixture
def two(path: Path, cluster: Here) -> Iterator[LanguageModel]:
    with load(path, n_ctx=512, batch_invariant=True, stages=2) as model:
        yield model


def test_the_bits_of_one_process(one: LanguageModel, two: LanguageModel) -> None:
    ids = np.random.default_rng(5).integers(0, 256, 3 * ROWS).tolist()
    assert np.array_equal(two.logits(ids), one.logits(ids))
    assert np.array_equal(two.hidden(ids[:40]), one.hidden(ids[:40]))
    options: dict[str, Any] = {"max_tokens": 12, "seed": 3, "logprobs": 2, "ignore_end": True}
    prompts = [ids[:200], ids[:200], ids[:7], [1]]
    assert two.generate_batch(prompts, **options) == one.generate_batch(prompts, **options)
    assert two.backend == one.backend
    assert two.backends[0].instructions == one.backends[0].instructions
    assert len(two.grains) == N_LAYER
    assert [grain.partition(" on machine ")[2] for grain in two.grains] == ["0", "0", "1", "1"]
    assert 0 < two.forward.cache_nbytes("f16", 64) < one.forward.cache_nbytes("f16", 64)


def test_each_stage_reads_its_own_layers(path: Path, cluster: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[int, set[str]] = {}
    for name in ("raw", "copy"):
        whole_way = getattr(GGUFFile, name)

        def noting(file: GGUFFile, tensor: str, *more: int, way: Callable[..., object] = whole_way) -> object:
            read.setdefault(id(file), set()).add(tensor)
            return way(file, tensor, *more)

        monkeypatch.setattr(GGUFFile, name, noting)
    with load(path, n_ctx=64, stages=2) as model:
        model.logits([1, 2])
        layers = [{name.split(".")[1] for name in names if name.startswith("blk.")} for names in read.values()]
        assert sorted(map(sorted, filter(None, layers))) == [["0", "1"], ["2", "3"]]
        assert read.get(id(model.file), set()) <= {"rope_freqs.weight"}  # this process holds none


def test_a_stage_that_is_lost_is_filled_again(one: LanguageModel, two: LanguageModel, cluster: Here) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "seed": 3, "ignore_end": True}
    expected = [str(piece) for piece in one.generate("Once upon", **options)]
    for stage in cluster.machines.made:
        found = []
        for n, piece in enumerate(two.generate("Once upon", **options)):
            found.append(str(piece))
            if n == 7:
                stage.lose()
        assert found == expected


def test_texts_that_share_a_beginning_are_filled_again(one: LanguageModel, two: LanguageModel, cluster: Here) -> None:
    ids = list(range(100))
    found = []
    for model in (one, two):
        with model.session(max_tokens=512) as session:
            session.feed(ids)
            session.fork(0, 1, 90)
            session.mark(1)
            session.feed([5, 6], 1)
            session.truncate(0, 40)
            if model is two:
                cluster.machines.made[1].lose()
            found.append(session.step({0: [9, 8], 1: [7]}))
            assert session.length(1) == 93
            session.drop(1)
            session.use_backend("numpy")
            assert session.feed([4]).shape == (1, model.config.n_vocab)
    for sequence in (0, 1):
        np.testing.assert_array_equal(found[0][sequence], found[1][sequence])


def test_what_is_lost_again_and_again_is_an_error(two: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise LostError("ended", where="machine 1")

    monkeypatch.setattr(Stage, "step", lost)
    with pytest.raises(LostError, match="machine 1: ended"):
        list(two.generate("Once"))


def test_an_error_of_a_stage_is_told_and_the_cache_begins_anew(
    one: LanguageModel, two: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two.session() as session, monkeypatch.context() as patch:
        session.feed([1, 2, 3])

        def failing(*_: Any) -> None:
            raise RuntimeError("no")

        patch.setattr(Stage, "step", failing)
        with pytest.raises(BackendError, match="a step failed: RuntimeError: no"):
            session.feed([4])
        patch.undo()
        assert session.behind() == 3
        np.testing.assert_array_equal(session.feed([4]), one.logits([1, 2, 3, 4])[-1:])


def test_no_room_is_said_before_any_stage_is_told(two: LanguageModel, cluster: Here) -> None:
    cache = two.new_cache(32)
    two.step(Batch.of([1] * 30), cache)
    n_calls = [stage.n_calls for stage in cluster.machines.made]
    with pytest.raises(MemoryLimitError):
        two.step(Batch([2] * 40, (Run(0, 30, 1), Run(1, 0, 39)), [0]), cache)
    assert [stage.n_calls for stage in cluster.machines.made] == n_calls
    assert cache.length(0) == 30
    assert cache.nbytes > 0


def test_saved_and_loaded(one: LanguageModel, two: LanguageModel) -> None:
    with two.session() as session, two.session() as other:
        session.feed(range(50))
        data = list(session.save())
        other.load(range(50), data)
        np.testing.assert_array_equal(other.feed([3]), one.logits([*range(50), 3])[-1:])
        for wrong in (b"".join(data)[:-1], b"".join(data) + b"x", b"sis-kv-2\n{}", b""):
            with pytest.raises(BackendError, match="not a saved sequence"):
                other.load(range(50), [wrong])
        assert isinstance(other._cache, StagedCache)


def test_stages_forget_what_sessions_have_closed(two: LanguageModel, cluster: Here) -> None:
    made = cluster.machines.made
    stages = [each._made() for each in made]
    with two.session() as session:
        session.feed([1, 2, 3])
        assert [len(stage._caches) for stage in stages] == [1, 1]
        n_calls = [each.n_calls for each in made]
    assert [each.n_calls for each in made] == n_calls  # the collector may close one while a call holds its locks
    with two.session():
        for each in made:
            each.call("about").result()
        assert [len(stage._caches) for stage in stages] == [0, 0]


def test_the_split_weighs_the_ends(one: LanguageModel) -> None:
    assert split(one.network, 1) == (range(4),)
    assert split(one.network, 4) == (range(1), range(1, 2), range(2, 3), range(3, 4))
    with pytest.raises(ModelError, match="can be cut into 4 stages at most, not 5"):
        split(one.network, 5)


def test_machines_that_differ_are_refused(path: Path, cluster: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter("ab")
    monkeypatch.setattr("sis_core.stages.stage.identity", lambda model: {"model": next(numbers)})
    with pytest.raises(BackendError, match="stage 1 on machine 1: model is 'b', and on stage 0 on machine 0 'a'"):
        load(path, stages=2)


def test_no_cluster_is_installed(path: Path) -> None:
    from sis_core.stages.backend import the_cluster

    with pytest.raises(PluginError, match=r"no installed plugin reaches other machines\. `pip install sis-ray`"):
        the_cluster(Registry.of())
    found = Here()
    plugin = SimpleNamespace(sis_register_clusters=hookimpl(lambda: [found]), __name__="threads")
    assert the_cluster(Registry.of(plugin)) is found


def test_a_recipe_is_plain_data(one: LanguageModel) -> None:
    import pickle

    from sis_core.loading.options import LoadOptions

    recipe = Recipe.of(one.path, LoadOptions(n_ctx=64), one.preset, one.registry)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.registry().names("architectures") == one.registry.names("architectures")


def test_a_stage_without_room_for_a_cache_is_named(two: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sis_core.loading.model.available_memory", lambda: 1000)  # here, and where the stages are
    with pytest.raises(MemoryLimitError, match=r"machine 0: a cache of 512 tokens: needs .*, but 0 MiB are free"):
        two.session()
    monkeypatch.setattr(Stage, "check_room", lambda self, max_tokens: None)
    with two.session() as session:  # this machine keeps nothing of it
        assert session.feed([1]).shape == (1, two.config.n_vocab)


def test_caches_may_take_what_the_stage_with_least_has(two: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter((5000, 300))
    monkeypatch.setattr(Stage, "free_nbytes", lambda self: next(free))
    assert free_nbytes(two) == 300


def test_doctor_tells_of_each_stage(path: Path, cluster: Here) -> None:
    done = CliRunner().invoke(group, ["doctor", "-m", str(path), "--stages", "2", "--ctx", "64"])
    assert done.exit_code == 0, done.output
    assert "\nmemory: machine 0: " in done.output
    assert "\nmachine 1: in place" in done.output
    assert "as its stage runs it" in done.output
    assert "one step: finite logits" in done.output
