"""A worker on each machine of a cluster, once it is sure that all of them do the same."""

from __future__ import annotations

from collections.abc import Sequence

from sis_core.cluster import Machines, Remote
from sis_core.errors import SisError
from sis_core.loading.alike import check_alike
from sis_core.loading.recipe import Recipe
from sis_server.batch.shards import BACK
from sis_server.batch.worker import Worker


def start_workers(
    machines: Machines, recipe: Recipe, *, template: str | None, cache_tokens: int | None, at_once: int
) -> tuple[Sequence[Remote], dict[str, str]]:
    """The workers, and the identity that they have in common.

    Raises:
        SisError: a machine cannot load the model, or does not do what the others do; it is named.
    """
    workers = [machines.make(Worker, recipe, template, cache_tokens, at_once, on=i) for i in range(len(machines.names))]
    identities: dict[str, dict[str, str]] = {}
    for worker in workers:
        try:
            worker.wait(BACK)
            identities[worker.where] = worker.call("identity").result()
        except SisError as error:
            raise type(error)(error.what, where=f"{worker.where}: {error.where}", fix=error.fix) from error
    check_alike(identities)
    return workers, identities[workers[0].where]
