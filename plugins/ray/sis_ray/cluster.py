"""Joining a cluster of Ray, or starting one on this machine alone."""

from __future__ import annotations

import logging
import os
import socket
from types import ModuleType
from typing import Any

from sis_core.cluster import Cluster, Machines
from sis_core.errors import PluginError, SourceError
from sis_ray import settings

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 10.0
START_SECONDS = (
    120  # that the parts of Ray may take to start: by default it gives up after 30, on a busy machine too early
)


def _check_there(address: str) -> None:
    """SourceError unless somebody listens at ``HOST:PORT``: Ray would try for minutes, and say less."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise SourceError(
            f"nobody answers: {error.strerror or error}",
            where=f"Ray at {address}",
            fix="start it there with `ray start --head`",
        ) from None


def _keep_stdout_clean(worker: ModuleType) -> None:
    """Let the log have what Ray would print about its nodes: standard output is for texts. Ray has no option for it."""

    def print_to_stdstream(data: dict[str, Any], ignore_prefix: bool) -> None:
        for line in data["lines"]:
            log.info("%s: %s", data["pid"], line.strip())

    worker.print_to_stdstream = print_to_stdstream  # type: ignore[attr-defined]


class RayCluster(Cluster):
    """Machines by Ray."""

    name = "ray"

    def join(self, address: str = "") -> Machines:
        """Connect to ``address``, else to that of RAY_ADDRESS, else start Ray here, listening on loopback alone.

        Raises:
            PluginError: Ray is not installed.
            SourceError: nothing answers there, or it asks for a token that is not here.
        """
        address = address or os.environ.get("RAY_ADDRESS", "")
        here = address in ("", "local")
        settings.prepare(here=here, address=address)
        if not here:
            _check_there(address)
        os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
        try:
            import ray
        except ImportError:
            raise PluginError(
                "Ray is not installed", where="cluster ray", fix="`pip install 'sis-ray[ray]'` on every machine"
            ) from None
        from sis_ray.machines import RayMachines

        _keep_stdout_clean(ray._private.worker)
        if ray.is_initialized():
            return RayMachines(leave=False)
        try:
            if here:
                ray.init("local", include_dashboard=False, _node_ip_address=LOOPBACK, **settings.QUIET)
            else:
                ray.init(address, **settings.QUIET)
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            raise SourceError(
                f"cannot be joined: {type(error).__name__}: {said}",
                where=f"Ray at {address or LOOPBACK}",
                fix="start it there with `ray start --head`, with the same token and the same version of Ray",
            ) from error
        return RayMachines(leave=True)
