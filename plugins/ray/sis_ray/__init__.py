"""Several machines by Ray: objects of sis as its actors."""

from __future__ import annotations

from sis_core import hookimpl
from sis_core.cluster import Cluster


@hookimpl
def sis_register_clusters() -> list[Cluster]:
    from sis_ray.cluster import RayCluster

    return [RayCluster()]
