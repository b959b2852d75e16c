"""A server over the built-in model, on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from sis_server.app import make_app
from sis_server.catalogue import Catalogue
from sis_server.guard import LOOPBACK, Rules
from sis_server.metrics import Metrics
from sis_server.models import Models, Opener
from sis_server.receiving import Limits, http_protocol
from sis_server.running import MAX_HEADERS, listen
from sis_server.served import Served

from sis_core import load
from sis_core.registry import Registry

HERE = Path(__file__).parent
CALLING = HERE.parents[1] / "chat" / "tests" / "templates" / "tagged_json.jinja"


def until(true: Any) -> None:
    """Wait for something that must become true."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("did not become true")


class Running:
    """A server that answers, and a client for it."""

    def __init__(self, served: Served, port: int) -> None:
        self.served, self.port = served, port
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def post(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def until(self, true: Any) -> None:
        until(true)


@contextlib.contextmanager
def listening(models: Models, metrics: Metrics, rules: Rules | None, limits: Limits) -> Iterator[int]:
    """The port of a server over models, which are closed at the end."""
    app = make_app(models, metrics, rules or Rules(hosts=LOOPBACK), limits)
    config = uvicorn.Config(
        app, http=http_protocol(limits.seconds), ws="none", lifespan="off", log_config=None,
        timeout_graceful_shutdown=1, h11_max_incomplete_event_size=MAX_HEADERS,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as bound, contextlib.closing(models):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextlib.contextmanager
def serving(
    rules: Rules | None = None,
    limits: Limits | None = None,
    *,
    queue_limit: int = 64,
    cache_tokens: int = 4096,
    template: str = "chatml",
    path: Path | None = None,
    plugin: Path = HERE / "scripts.py",
) -> Iterator[Running]:
    """A server while it is used; one text is the same alone and beside others."""
    registry = Registry.load(files=[plugin])
    with load(path, batch_invariant=True, n_threads=1, registry=registry) as model:
        served = Served(
            model, ("tiny", "other"), template=template, cache_tokens=cache_tokens, stall=0.08, queue_limit=queue_limit
        )
        served.engine.start()
        models = Models()
        models.pin(served)
        with listening(models, served.metrics, rules, limits or Limits()) as port:
            running = Running(served, port)
            with running.client:
                yield running


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def calling() -> Iterator[Running]:
    """One whose template has tools and thoughts."""
    with serving(template=str(CALLING)) as running:
        yield running


@pytest.fixture(scope="session")
def serve() -> Any:
    """Makes servers of other settings: ``with serve(rules, limits, queue_limit=…) as running``."""
    return serving


@pytest.fixture
def shelf() -> Any:
    """Makes servers of models by name: ``with shelf(catalogue, opener, idle) as (client, models)``."""

    @contextlib.contextmanager
    def made(
        catalogue: Catalogue, opener: Opener, *, idle: float | None = None, metrics: Metrics | None = None
    ) -> Iterator[tuple[httpx.Client, Models]]:
        models = Models(catalogue, opener, idle=idle)
        with (
            listening(models, metrics or Metrics(), None, Limits()) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            yield client, models

    return made
