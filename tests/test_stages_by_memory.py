"""As few stages as memory needs, on machines that are threads and say what memory they are told to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import metadata, tensors, write_model

from sis_core import LanguageModel, load
from sis_core.backend import views_nbytes
from sis_core.cache.kv_types import value_bytes
from sis_core.cache.tables import text_nbytes
from sis_core.cli.main import group
from sis_core.cluster import Cluster
from sis_core.errors import MemoryLimitError, PluginError, SisError
from sis_core.loading.fitting import MIN_CTX
from sis_core.loading.options import LoadOptions
from sis_core.stages.backend import n_stages
from sis_core.stages.by_memory import Needs, Room
from sis_core.stages.split import split_into, weights_nbytes
from sis_core.testing.machines import ThreadRemote, Threads

N_LAYER = 6


class Told(Room):
    def __init__(self, free: int) -> None:
        self._free = free

    def free(self, memory_limit: int | None) -> int:
        return self._free


class Measured(Threads):
    """Machines with so many bytes free."""

    def __init__(self, free: Sequence[int]) -> None:
        super().__init__(len(free))
        self._free = free
        self.closed = False

    def make(self, kind: Callable[..., Any], *arguments: Any, on: int = 0, at_once: int = 1) -> ThreadRemote:
        if kind is Room:
            return super().make(Told, self._free[on], on=on)
        return super().make(kind, *arguments, on=on, at_once=at_once)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = metadata(llama__block_count=N_LAYER, llama__context_length=4096)
    return write_model(tmp_path_factory.mktemp("stages") / "six.gguf", values, tensors(n_layer=N_LAYER))


@pytest.fixture(scope="module")
def needs(path: Path) -> Needs:
    with load(path) as model:
        return Needs(model.config, model.network, "f16", 512)


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measured]:
    def joined(*free: int) -> Measured:
        machines = Measured(free)

        class Here(Cluster):
            name = "threads"

            def join(self, address: str = "") -> Threads:
                return machines

        monkeypatch.setattr("sis_core.stages.backend.the_cluster", lambda registry: Here())
        monkeypatch.setattr("sis_core.stages.backend.memory_limit_or_free", lambda limit: free[0])
        return machines

    return joined


def taken(model: LanguageModel, layers: range, n_ctx: int) -> float:
    """Bytes of some layers, beside what a step works in."""
    states = [block.state for block in model.network.blocks[layers.start : layers.stop] if block.state]
    cache = sum(text_nbytes(state, value_bytes("f16"), n_ctx) for state in states)
    return views_nbytes(model.network.weights(layers)) + cache


def stages_of(model: LanguageModel) -> list[tuple[str, int]]:
    """Machines and how many layers each has."""
    names = [grain.partition(" on ")[2] for grain in model.grains]
    return [(name, len(list(layers))) for name, layers in itertools.groupby(names)]


def test_where_one_machine_is_enough_no_cluster_is_joined(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(registry: Any) -> Cluster:
        raise PluginError("no cluster")

    monkeypatch.setattr("sis_core.stages.backend.the_cluster", none)
    caplog.set_level("INFO")
    with load(path, n_ctx=64, stages="auto") as model:
        assert n_stages(model) == 1
    assert "one stage, here: " in caplog.text
    with pytest.raises(PluginError, match="no cluster"):
        load(path, n_ctx=64, stages="auto", memory_limit=1 << 20)


def test_the_bits_of_one_process_on_the_two_machines_with_most(
    path: Path, needs: Needs, join: Callable[..., Measured], caplog: pytest.LogCaptureFixture
) -> None:
    working, both = needs.whole.working, needs.whole.total - needs.whole.working
    caplog.set_level("INFO")
    join(working + both // 4, working + 3 * both // 4, working + both // 2)
    ids = list(range(200))
    with load(path, n_ctx=512, batch_invariant=True) as one:
        expected = one.logits(ids)
    with load(path, n_ctx=512, batch_invariant=True, stages="auto") as model:
        assert n_stages(model) == 2
        assert [name for name, _ in stages_of(model)] == ["machine 1", "machine 2"]
        assert np.array_equal(model.logits(ids), expected)
        assert model.config.n_ctx == 512
    assert "2 stages: " in caplog.text


def test_one_stage_on_another_machine(path: Path, needs: Needs, join: Callable[..., Measured]) -> None:
    machines = join(1 << 20, needs.whole.total)
    with load(path, n_ctx=512, stages="auto") as model:
        assert stages_of(model) == [("machine 1", N_LAYER)]
        assert n_stages(model) == 1
    assert machines.closed


def test_the_context_is_the_longest_that_fits(path: Path, needs: Needs, join: Callable[..., Measured]) -> None:
    working, weights = needs.whole.working, needs.whole.weights
    rooms = {"machine 0": 3 * weights // 4, "machine 1": weights // 2, "machine 2": weights // 3}
    join(*(working + room for room in rooms.values()))
    with load(path, stages="auto") as model:
        n_ctx = model.config.n_ctx
        assert MIN_CTX <= n_ctx < model.config.n_ctx_train
        first, found = 0, stages_of(model)
        assert [name for name, _ in found] == list(rooms)[: len(found)]
        for name, n in found:
            assert taken(model, range(first, first + n), n_ctx) <= rooms[name]
            first += n
        ways = itertools.combinations(range(1, N_LAYER), len(found) - 1)
        for inner in ways:  # no way of cutting has room for one token more
            bounds = [0, *inner, N_LAYER]
            parts = [range(*pair) for pair in itertools.pairwise(bounds)]
            assert any(taken(model, p, n_ctx + 1) > rooms[n] for p, n in zip(parts, rooms, strict=False))


def test_all_together_are_too_little(path: Path, needs: Needs, join: Callable[..., Measured]) -> None:
    machines = join(9 << 20, 10 << 20)
    with pytest.raises(MemoryLimitError) as caught:
        load(path, n_ctx=4096, kv_type="f32", stages="auto")
    said = str(caught.value)
    assert str(path) in said
    assert "= 12 MiB, and 9 MiB more for each stage after the first, but 19 MiB are free: " in said
    assert "10 on machine 1, 9 on machine 0. Ask for a shorter context (--ctx)" in said
    assert machines.closed
    with pytest.raises(MemoryLimitError, match="and less on 12 more"):
        needs.place({f"machine {i}": 1000 for i in range(20)}, "file")


def test_the_largest_range_is_as_small_as_rooms_allow(needs: Needs) -> None:
    """Against all ways to cut."""
    random, n_none = np.random.default_rng(1), 0
    for n in [1, 2, 3, 4, N_LAYER, N_LAYER + 1] * 30:
        sizes = random.integers(0, 10, N_LAYER).tolist()
        rooms = random.integers(1, 60 // n, n).tolist()
        ways = []
        for inner in itertools.combinations(range(1, N_LAYER), n - 1):
            parts = [sum(sizes[start:stop]) for start, stop in itertools.pairwise([0, *inner, N_LAYER])]
            if all(part <= room for part, room in zip(parts, rooms, strict=True)):
                ways.append(max(parts))
        found = split_into(needs._network, sizes, rooms)
        if found is None:
            n_none += 1
            assert not ways
            continue
        assert [layer for part in found for layer in part] == list(range(N_LAYER))
        parts = [sum(sizes[part.start : part.stop]) for part in found]
        assert all(part <= room for part, room in zip(parts, rooms, strict=True))
        assert max(parts) == min(ways)
    assert 30 < n_none < 150


def test_what_is_no_number_of_stages() -> None:
    with pytest.raises(SisError, match="stages: is 'some', but must be a whole number or auto"):
        LoadOptions(stages="some")  # type: ignore[arg-type]
    shown = CliRunner().invoke(group, ["generate", "Once", "--stages", "some"])
    assert shown.exit_code == 2
    assert "'some' is not a valid integer range" in shown.output
    assert "--stages N|auto" in CliRunner().invoke(group, ["generate", "--help"]).output


def test_weights_of_layers_add_up(path: Path) -> None:
    with load(path, n_ctx=64) as model:
        assert sum(weights_nbytes(model.network)) == views_nbytes(model.network.weights())


def test_the_program_takes_it(path: Path) -> None:
    done = CliRunner().invoke(
        group, ["generate", "Once", "-m", str(path), "-n", "3", "--ctx", "64", "--stages", "auto"]
    )
    assert done.exit_code == 0, done.output
