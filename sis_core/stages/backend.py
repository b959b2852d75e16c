"""The backend of a model in stages: it answers for all layers, by stages on the machines of a cluster."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from sis_core.architecture import ModelConfig
from sis_core.backend import Backend, BackendOptions, Handling
from sis_core.block import Block, Network
from sis_core.cluster import Cluster, Machines, Remote
from sis_core.errors import PluginError, SisError, package_for
from sis_core.loading.model import Model
from sis_core.loading.open import Elsewhere
from sis_core.loading.options import AUTO, LoadOptions
from sis_core.loading.recipe import Recipe
from sis_core.machine.memory import MIB, memory_limit_or_free
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.source import Preset
from sis_core.stages.by_memory import Needs, Room
from sis_core.stages.forward import StagedForward
from sis_core.stages.split import split
from sis_core.stages.stage import About, Stage

log = logging.getLogger(__name__)


class StagesBackend(Backend):
    """A model's layers on several machines.

    Args:
        machines: those of a cluster that was joined.
        recipe: how each stage loads its layers.
        stages: the machine of each, and its layers.
    """

    def __init__(self, machines: Machines, recipe: Recipe, stages: Sequence[tuple[str, range]]) -> None:
        self._machines, self._recipe, self._stages = machines, recipe, stages
        self._identity: dict[str, str] = {}
        self._made: list[Remote] = []
        weakref.finalize(self, machines.close)  # should no forward come of it

    @property
    def n_stages(self) -> int:
        return len(self._stages)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The backend that the stages have: a text does not depend on where its layers are."""
        return self._identity.get("backend", "stages")

    @property
    def instructions(self) -> str:
        return self._identity.get("instructions", "")

    def forward(self, network: Network, layers: range, options: BackendOptions) -> StagedForward:
        names = list(self._machines.names)
        self._made = made = []
        for name, part in self._stages:
            log.info("layers %d to %d: %s", part.start, part.stop - 1, name)
            made.append(self._machines.make(Stage, self._recipe, network.n_ctx, part, on=names.index(name)))
        try:
            forward = StagedForward(network, made, [part for _, part in self._stages])
        except SisError:
            for stage in made:
                stage.close()
            raise
        self._identity = forward.identity
        weakref.finalize(forward, self._machines.close)  # as weights are freed: with the model, and its last session
        return forward

    def free_nbytes(self) -> int:
        """Bytes that caches may take in the stage that has least."""
        answers = [stage.call("free_nbytes") for stage in self._made]
        return min(int(answer.result()) for answer in answers)

    def memory_lines(self) -> list[str]:
        """What each stage takes, and how it keeps its weights."""
        found: list[About] = [stage.call("about").result() for stage in self._made]
        return [f"{stage.where}: {about.memory}" for stage, about in zip(self._made, found, strict=True)]

    def knows(self, record: Network | Block | Weight, options: BackendOptions) -> bool:
        return isinstance(record, Network)

    def handling(self, weight: Weight, options: BackendOptions) -> Handling:
        return Handling("as its stage runs it", weight.nbytes)

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        """Nothing here: each stage counts its own."""
        return 0


def in_stages(path: Path, options: LoadOptions, preset: Preset, registry: Registry) -> Elsewhere | None:
    """What binds a model in the stages that ``options`` ask for; None where that is one, here.

    It raises PluginError when no cluster is installed, MemoryLimitError where machines have too little memory, and what
    `Cluster.join` does.
    """
    if options.stages == 1:
        return None
    recipe = Recipe.of(path, options, preset, registry)

    def elsewhere(
        config: ModelConfig, network: Network, n_ctx: int | None, asked: BackendOptions
    ) -> tuple[Backend, int | None] | None:
        if options.stages == AUTO:
            return _by_memory(recipe, Needs(config, network, asked.kv_type, n_ctx), registry)
        ranges = split(network, options.stages, str(path))
        machines = the_cluster(registry).join()
        names = islice(cycle(machines.names), len(ranges))  # where there are fewer than stages, some have several
        return StagesBackend(machines, recipe, list(zip(names, ranges, strict=True))), n_ctx

    return elsewhere


def _by_memory(recipe: Recipe, needs: Needs, registry: Registry) -> tuple[Backend, int] | None:
    """As few stages as the machines' memory needs; None where this machine alone has enough."""
    limit = recipe.options.memory_limit
    if needs.whole.total <= (here := memory_limit_or_free(limit)):
        log.info("one stage, here: %d MiB of memory are enough for %s", here // MIB, needs.whole)
        return None
    machines = the_cluster(registry).join()
    try:
        rooms = [machines.make(Room, on=i) for i in range(len(machines.names))]
        answers = [room.call("free", limit) for room in rooms]
        free = {name: answer.result() for name, answer in zip(machines.names, answers, strict=True)}
        for room in rooms:
            room.close()
        placed = needs.place(free, str(recipe.path))
    except BaseException:
        machines.close()
        raise
    log.info("%d stages: %d MiB of memory are not enough for %s", len(placed.stages), here // MIB, needs.whole)
    return StagesBackend(machines, recipe, placed.stages), placed.n_ctx


def n_stages(model: Model) -> int:
    """Into how many stages a model was put; 1 for one that is bound here."""
    (backend, *_) = model.backends
    return backend.n_stages if isinstance(backend, StagesBackend) else 1


def memory_lines(model: Model) -> list[str]:
    """What a model takes where it is bound, and how its weights are kept: a line for each of its stages."""
    (backend, *_) = model.backends
    return backend.memory_lines() if isinstance(backend, StagesBackend) else model.fit.lines()


def free_nbytes(model: Model) -> int:
    """Bytes that a model's caches may take where they lie: of its stages that which has least counts."""
    (backend, *_) = model.backends
    return backend.free_nbytes() if isinstance(backend, StagesBackend) else model.free_nbytes()


def the_cluster(registry: Registry) -> Cluster:
    """The cluster that is installed; PluginError when none is."""
    found: list[Cluster] = registry.records("clusters")
    if not found:
        package = package_for("clusters", "ray")
        raise PluginError(
            "no installed plugin reaches other machines", where="--stages", fix=f"`pip install {package}`"
        )
    return found[0]
