"""The server's application over one model, without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from sis_core.texts.language_model import LanguageModel
from sis_server.app import make_app
from sis_server.guard import Rules
from sis_server.metrics import Metrics
from sis_server.models import Models
from sis_server.receiving import Limits
from sis_server.room import cache_tokens_for
from sis_server.served import Served


@contextmanager
def application(
    model: LanguageModel, *, template: str | None, cache_tokens: int | None, at_once: int, n_engines: int = 1
) -> Iterator[ASGIApp]:
    """One that answers ``at_once`` requests beside each other, and as many that wait; the model stays the caller's."""
    metrics = Metrics()
    served = Served(
        model, (model.path.stem,), template=template, cache_tokens=cache_tokens or cache_tokens_for(model), stall=None,
        queue_limit=2 * at_once, metrics=metrics, n_engines=n_engines,
    )  # fmt: skip
    served.engine.start()
    try:
        models = Models()
        models.pin(served)
        yield make_app(models, metrics, Rules(), Limits())
    finally:
        served.engine.close()
