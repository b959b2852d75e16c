"""The life of a server: a socket, an engine, an application, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Generator, Iterator

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from sis_core.cli.streams import say
from sis_core.errors import SourceError
from sis_server.ending import Ending
from sis_server.models import Models
from sis_server.receiving import Limits, http_protocol

MAX_HEADERS = 64 << 10
LAST_WORDS = 2.0  # seconds, for what is cut at the deadline to say so


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, before a model is loaded for it; SourceError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise SourceError(
            f"cannot listen there: {error.strerror or error}", where=f"{host}:{port}", fix="choose another --port"
        ) from None
    with listening:
        yield listening


def run(models: Models, app: ASGIApp, listening: socket.socket, limits: Limits, grace: float) -> None:
    """Serve models until an interrupt or SIGTERM; replies then have ``grace`` seconds to end."""
    serve(app, listening, limits, grace, what=_told(models), sizes=_sizes(models))


def serve(app: ASGIApp, listening: socket.socket, limits: Limits, grace: float, *, what: str, sizes: str = "") -> None:
    """The same for any application; people are told ``what`` it serves, and its sizes."""
    config = uvicorn.Config(
        Ending(app),
        http=http_protocol(limits.seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(grace)),
        h11_max_incomplete_event_size=MAX_HEADERS,
    )
    AppStatus.enable_automatic_graceful_drain = (
        False  # it would cut every stream at the signal; uvicorn does after `grace`
    )
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each client that leaves in the middle of a word
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"sis: {what} at http://{shown}:{port}{sizes}")
    _Server(config).run(sockets=[listening])


def _told(models: Models) -> str:
    return ", ".join(served.id for served in models.served()) or "models by name"


def _sizes(models: Models) -> str:
    return "".join(
        f" (context {served.engine.n_ctx} tokens, cache {served.cache_tokens})" for served in models.served()
    )


class _Server(uvicorn.Server):
    """One that ends quietly: uvicorn raises the signal again, and what stands after it would never run."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if cancelled := self.server_state.tasks:
            await asyncio.wait(cancelled, timeout=LAST_WORDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        kinds = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
