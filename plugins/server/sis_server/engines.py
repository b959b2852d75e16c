"""Several engines over one model whose layers are in stages.

While the batch of one is in a later stage, that of another is in the first, so that no stage waits. Each has a session
of its own; texts stay where they began.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from sis_core.texts.request import Request
from sis_server.engine import Caller, Counts, Engine, Outlet, Times


class Engines:
    """Engines as one: a request goes to the engine with the fewest. Methods are those of `Engine`."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def start(self) -> None:
        for engine in self._engines:
            engine.start()

    @property
    def n_open(self) -> int:
        return sum(engine.n_open for engine in self._engines)

    @property
    def n_running(self) -> int:
        return sum(engine.n_running for engine in self._engines)

    @property
    def n_ctx(self) -> int:
        return self._engines[0].n_ctx

    @property
    def alive(self) -> bool:
        return all(engine.alive for engine in self._engines)

    @property
    def counts(self) -> Counts:
        return reduce(Counts.added, (engine.counts for engine in self._engines))

    def texts(self) -> list[dict[str, int]]:
        n = len(self._engines)
        return [{**text, "id": text["id"] * n + i} for i, engine in enumerate(self._engines) for text in engine.texts()]

    def submit(self, request: Request, outlet: Outlet, times: Times | None = None, caller: Caller | None = None) -> int:
        i = min(range(len(self._engines)), key=lambda i: self._engines[i].n_open)
        return self._engines[i].submit(request, outlet, times, caller) * len(self._engines) + i

    def cancel(self, ticket: int) -> None:
        ticket, i = divmod(ticket, len(self._engines))
        self._engines[i].cancel(ticket)

    def close(self, deadline: float = 0.0) -> None:
        for engine in self._engines:
            engine.close(deadline)
