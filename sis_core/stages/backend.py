"""The backend of a model in stages: it answers for all layers, by stages on the machines of a cluster."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path

from sis_core.backend import Backend, BackendOptions
from sis_core.block import Network
from sis_core.cluster import Cluster, Machines, Remote
from sis_core.errors import PluginError, SisError, package_for
from sis_core.loading.options import LoadOptions
from sis_core.loading.recipe import Recipe
from sis_core.registry import Registry
from sis_core.source import Preset
from sis_core.stages.forward import StagedForward
from sis_core.stages.split import split
from sis_core.stages.stage import Stage

log = logging.getLogger(__name__)


class StagesBackend(Backend):
    """A model's layers on several machines.

    Args:
        machines: those of a cluster that was joined; where there are fewer than stages, some have several.
        recipe: how each stage loads its layers.
        n: stages.
    """

    def __init__(self, machines: Machines, recipe: Recipe, n: int) -> None:
        self._machines, self._recipe, self._n = machines, recipe, n
        self._identity: dict[str, str] = {}
        weakref.finalize(self, machines.close)  # should no forward come of it

    @property
    def name(self) -> str:  # type: ignore[override]
        """The backend that the stages have: a text does not depend on where its layers are."""
        return self._identity.get("backend", "stages")

    @property
    def instructions(self) -> str:
        return self._identity.get("instructions", "")

    def forward(self, network: Network, layers: range, options: BackendOptions) -> StagedForward:
        ranges = split(network, self._n, str(self._recipe.path))
        names = self._machines.names
        stages: list[Remote] = []
        for i, part in enumerate(ranges):
            on = i % len(names)
            log.info("layers %d to %d: %s", part.start, part.stop - 1, names[on])
            stages.append(self._machines.make(Stage, self._recipe, network.n_ctx, part, on=on))
        try:
            forward = StagedForward(network, stages, ranges)
        except SisError:
            for stage in stages:
                stage.close()
            raise
        self._identity = forward.identity
        weakref.finalize(forward, self._machines.close)  # as weights are freed: with the model, and its last session
        return forward

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        """Nothing here: each stage counts its own."""
        return 0


def in_stages(path: Path, options: LoadOptions, preset: Preset, registry: Registry) -> list[StagesBackend] | None:
    """What binds a model in the stages that ``options`` ask for; None where that is one, here.

    PluginError when no cluster is installed; raises what `Cluster.join` does.
    """
    if options.stages == 1:
        return None
    recipe = Recipe.of(path, options, preset, registry)
    return [StagesBackend(the_cluster(registry).join(), recipe, options.stages)]


def the_cluster(registry: Registry) -> Cluster:
    """The cluster that is installed; PluginError when none is."""
    found: list[Cluster] = registry.records("clusters")
    if not found:
        package = package_for("clusters", "ray")
        raise PluginError(
            "no installed plugin reaches other machines", where="--stages", fix=f"`pip install {package}`"
        )
    return found[0]
