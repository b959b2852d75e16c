"""Endpoints that tell of a server: its models, whether it lives, what it counts, and what is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from sis_server import openapi
from sis_server.answering import Answer, answered
from sis_server.errors import ApiError
from sis_server.metrics import Metrics
from sis_server.models import Models
from sis_server.served import Served, options_of_page
from sis_server.tracing import Traces

META = ("n_vocab", "n_embd", "n_layer")


class About:
    """What can be known of the models of a server."""

    def __init__(self, models: Models, metrics: Metrics, traces: Traces) -> None:
        self._models, self._metrics, self._traces = models, metrics, traces

    @answered
    async def models(self, request: Request) -> Response:
        names = await self._models.names()
        return Answer({"object": "list", "data": [_model(name, served) for name, served in names.items()]})

    @answered
    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return Answer(_model(name, await self._models.get(name)))

    @answered
    async def health(self, request: Request) -> Response:
        alive = self._models.alive
        return Answer({"status": "ok" if alive else "stopped"}, status_code=200 if alive else 503)

    @answered
    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @answered
    async def props(self, request: Request) -> Response:
        """Of the model that ``?model=`` names, which is opened for it."""
        served = await self._models.use(request.query_params.get("model"), request.state.held)
        return Answer(
            {
                "model": served.id,
                "version": version("sis-server"),
                "backend": served.model.backend,
                "n_ctx": served.engine.n_ctx,
                "n_vocab": served.model.config.n_vocab,
                "cache_tokens": served.cache_tokens,
                "chat": served.chat_line,
                "sampler_options": options_of_page(served.sampler_options),
            }
        )

    @answered
    async def trace(self, request: Request) -> Response:
        """Where the time of a request went, by the id that its answer had."""
        found = self._traces.find(request.path_params["id"], request.state.salt)
        if found is None:
            raise ApiError(404, "no request of that id is remembered")
        return Answer(found.told())

    @answered
    async def tokenizer_info(self, request: Request) -> Response:
        """Of the model that ``?model=`` names, in the form that vLLM has and lm-eval reads."""
        model = (await self._models.use(request.query_params.get("model"), request.state.held)).model
        tokenizer = model.tokenizer
        tokens = {"bos_token": tokenizer.bos, "eos_token": min(tokenizer.end_tokens, default=None)}
        named = {name: None if token is None else tokenizer.token_text(token) for name, token in tokens.items()}
        return Answer({**named, "chat_template": model.metadata.get("tokenizer.chat_template")})

    @answered
    async def openapi(self, request: Request) -> Response:
        served = await self._models.use(None, request.state.held)
        return Answer(
            openapi.document(served.sampler_options, list(await self._models.names()), served.model.config.n_vocab)
        )

    @answered
    async def slots(self, request: Request) -> Response:
        return Answer(
            [{"model": served.id, **text} for served in self._models.served() for text in served.engine.texts()]
        )


def _model(name: str, served: Served | None) -> Mapping[str, Any]:
    """A model as OpenAI's API lists it; ``meta`` is known of one that is open."""
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "sis", "open": served is not None}
    if served is None:
        return entry
    meta = {"n_ctx": served.engine.n_ctx, **{field: getattr(served.model.config, field) for field in META}}
    return {**entry, "created": served.created, "meta": meta}
