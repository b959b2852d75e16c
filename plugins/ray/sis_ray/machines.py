"""Objects on machines as actors of Ray."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sis_core.cluster import Machines, Pending, Remote
from sis_core.errors import ClosedError, LostError
from sis_ray.host import Host

LITTLE = 0.001  # of a CPU: an actor that asks for nothing is put anywhere, whatever place it asks for
AGAIN = 0.5  # seconds until an actor is asked again whether it is back


class RayMachines(Machines):
    """The nodes of the cluster that this process has joined.

    Args:
        leave: whether to leave it at the end: who was in it before stays.
    """

    def __init__(self, *, leave: bool) -> None:
        self._leave = leave
        own = ray.get_runtime_context().get_node_id()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        nodes.sort(key=lambda node: (node["NodeID"] != own, node["NodeManagerAddress"], node["NodeID"]))
        self._nodes = [str(node["NodeID"]) for node in nodes]
        self.names = _distinct([f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes])
        self._made: list[RayRemote] = []

    def make(self, kind: Callable[..., Any], *arguments: Any, on: int = 0, at_once: int = 1) -> Remote:
        # Soft: what was on a machine that ended comes back on another one.
        place = NodeAffinitySchedulingStrategy(self._nodes[on], soft=True)
        options = {"num_cpus": LITTLE, "max_restarts": -1, "max_concurrency": at_once, "scheduling_strategy": place}
        if isa := os.environ.get("SIS_ISA"):
            options["runtime_env"] = {"env_vars": {"SIS_ISA": isa}}
        made = RayRemote(ray.remote(Host).options(**options).remote(kind, arguments), self.names[on])
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()
        self._made.clear()
        if self._leave:
            self._leave = False
            with suppress(ImportError):  # as a program ends nothing can be imported; Ray shuts down by itself then
                ray.shutdown()


class RayRemote:
    """An object in an actor."""

    def __init__(self, actor: Any, where: str) -> None:
        self._actor, self.where = actor, where
        self._closed = False
        self._life = self._ended = ""  # of the actor: the one that was waited for, and one that was told to end
        actor.ready.remote()  # begin now: those of other machines begin beside it

    def call(self, method: str, *arguments: Any) -> Pending:
        self._check_open()
        given = [argument.reference if isinstance(argument, RayPending) else argument for argument in arguments]
        return RayPending(self._actor.call.remote(method, *given), self.where)

    def stream(self, method: str, *arguments: Any) -> Iterator[Any]:
        self._check_open()
        stream = self._actor.stream.options(num_returns="streaming").remote(method, *arguments)
        for reference in stream:
            yield RayPending(reference, self.where).result()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._check_open()
            lost: BaseException | None = None
            try:
                life: str = ray.get(self._actor.ready.remote(), timeout=max(0.0, end - time.monotonic()))
                if life != self._ended:
                    self._life = life
                    return
            except (RayError, GetTimeoutError) as error:
                lost = error
                found = _ours(error, self.where)
                if not isinstance(found, LostError):
                    raise found from None
            if time.monotonic() + AGAIN > end:
                raise LostError(f"is not there after {seconds:g} seconds", where=self.where) from lost
            time.sleep(AGAIN)

    def restart(self) -> None:
        self._check_open()
        self._ended = self._life  # it may still answer for a moment
        ray.kill(self._actor, no_restart=False)

    def close(self) -> None:
        if not self._closed and ray.is_initialized():
            ray.kill(self._actor)
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:  # Ray would start a cluster for the call
            raise ClosedError("is closed", where=self.where)


class RayPending:
    """An answer in Ray's store of objects."""

    def __init__(self, reference: Any, where: str) -> None:
        self.reference, self._where = reference, where

    def result(self) -> Any:
        try:
            return ray.get(self.reference)
        except RayError as error:
            raise _ours(error, self._where) from None


def _ours(error: BaseException, where: str) -> BaseException:
    """What a method raised, else that its machine is lost."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if not isinstance(error, RayError):
        return error
    said = str(error).strip().partition("\n")[0]
    return LostError(f"ended in the middle of its work: {type(error).__name__}: {said}", where=where)


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number where several machines have one."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found
