"""The application: which path is answered by whom."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sis_server import (
    anthropic_fields,
    chat_asked,
    errors,
    openai_chat,
    openai_embeddings,
    openai_text,
    responses_fields,
)
from sis_server.answering import Answer, ErrorBody, refusal, streamed, unless_gone
from sis_server.anthropic_messages import MessageWriter
from sis_server.chat_asked import Chatting
from sis_server.errors import ApiError
from sis_server.fields import ChatCompletion, Detokenize, Embeddings, TextCompletion, Tokenize, read_fields
from sis_server.following import Heard, PlainText, follow
from sis_server.guard import Guard, Rules
from sis_server.pages import page
from sis_server.reading import read_object
from sis_server.receiving import Limits, read_body
from sis_server.responses import Kept, ResponseWriter, Store
from sis_server.served import Served, options_of_page

T = TypeVar("T")
Endpoint = Callable[["Api", Request], Awaitable[Response]]
WORKERS = 4  # requests that are rendered, tokenised and compiled at once
GONE = 499  # nginx's number for a client that left: nobody reads it


class Writer(Protocol):
    """How an API writes replies."""

    def whole(self, heard: AsyncIterator[Heard]) -> Awaitable[Mapping[str, Any]]: ...

    def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[str | None, Any]]: ...


def answered_to(body: ErrorBody) -> Callable[[Endpoint], Endpoint]:
    """Make an endpoint's errors answers, in the form of its API."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def safe(api: Api, request: Request) -> Response:
            try:
                return await endpoint(api, request)
            except ClientDisconnect:
                return Response(status_code=GONE)
            except Exception as error:
                return refusal(errors.logged(error), body)

        return safe

    return wrap


answered = answered_to(ApiError.openai)


class Api:
    """Endpoints over one model."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits
        self._workers = anyio.CapacityLimiter(WORKERS)
        self._responses = Store()

    async def read(self, request: Request, kind: type[Any], *, samplers: bool = True) -> tuple[Any, dict[str, Any]]:
        """A request's own fields, and those for samplers where there are any."""
        body = read_object(await read_body(request, self.limits))
        asked, sampling = read_fields(kind, body, self.served.sampler_options if samplers else {})
        self.served.check_name(asked.model)
        return asked, sampling

    async def work(self, function: Callable[..., T], *args: Any) -> T:
        """Run what takes long, away from the event loop."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._workers)

    async def chat(self, chatting: Chatting) -> tuple[int, AsyncGenerator[Heard]]:
        """Tokens of a chat, and its replies, which begin when they are first asked for."""
        requests, parsers = await self.work(chat_asked.prepare, self.served, chatting)
        return len(requests[0].prompt), follow(self.served.engine, self.served.metrics, requests, parsers)

    async def answer(
        self, request: Request, writer: Writer, heard: AsyncGenerator[Heard], *, stream: bool, **options: Any
    ) -> Response:
        """What a writer makes of replies: at once, or as they come."""
        if stream:
            return streamed(writer.events(heard), **options)
        async with contextlib.aclosing(heard):
            return Answer(await unless_gone(request, writer.whole(heard)))

    @answered
    async def chat_completions(self, request: Request) -> Response:
        asked, sampling = await self.read(request, ChatCompletion)
        _, heard = await self.chat(openai_chat.read(asked, sampling, request.state.salt))
        writer = openai_chat.ChatWriter(self.served.id, self.served.model.tokenizer, asked)
        return await self.answer(request, writer, heard, stream=asked.stream)

    @answered
    async def completions(self, request: Request) -> Response:
        asked, sampling = await self.read(request, TextCompletion)
        requests = await self.work(openai_text.prepare, self.served, asked, sampling, request.state.salt)
        heard = follow(self.served.engine, self.served.metrics, requests, [PlainText() for _ in requests])
        writer = openai_text.TextWriter(self.served, asked, requests)
        return await self.answer(request, writer, heard, stream=asked.stream)

    @answered
    async def embeddings(self, request: Request) -> Response:
        asked, _ = await self.read(request, Embeddings, samplers=False)
        requests = await self.work(openai_embeddings.prepare, self.served, asked)
        heard = follow(self.served.engine, self.served.metrics, requests, [PlainText() for _ in requests])
        async with contextlib.aclosing(heard):
            return Answer(await unless_gone(request, openai_embeddings.write(self.served, asked, requests, heard)))

    @answered
    async def responses(self, request: Request) -> Response:
        asked, sampling = await self.read(request, responses_fields.Response)
        salt = request.state.salt
        before = self._responses.items(asked.previous_response_id, salt)
        _, heard = await self.chat(responses_fields.read(asked, before, sampling, salt))

        def keep(id: str, output: Sequence[responses_fields.Item]) -> None:
            if asked.store:
                self._responses.add(id, Kept(salt, [*before, *responses_fields.items_of(asked), *output]))

        writer = ResponseWriter(self.served.id, asked, keep)
        return await self.answer(
            request, writer, heard, stream=asked.stream, error_event="error", body=ApiError.of_stream
        )

    @answered_to(ApiError.anthropic)
    async def messages(self, request: Request) -> Response:
        asked, sampling = await self.read(request, anthropic_fields.Message)
        chatting = anthropic_fields.read(asked, sampling, request.state.salt)
        n_prompt, heard = await self.chat(chatting)
        writer = MessageWriter(self.served.id, n_prompt, chatting.stop)
        return await self.answer(
            request, writer, heard, stream=asked.stream, error_event="error", body=ApiError.anthropic
        )

    @answered_to(ApiError.anthropic)
    async def count_tokens(self, request: Request) -> Response:
        asked, sampling = await self.read(request, anthropic_fields.MessageTokens)
        chatting = anthropic_fields.read(asked, sampling, request.state.salt)
        requests, _ = await self.work(chat_asked.prepare, self.served, chatting)
        return Answer({"input_tokens": len(requests[0].prompt)})

    @answered
    async def models(self, request: Request) -> Response:
        return Answer({"object": "list", "data": [self._model(name) for name in self.served.names]})

    @answered
    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.served.check_name(name)
        return Answer(self._model(name))

    def _model(self, name: str) -> Mapping[str, Any]:
        config, fields = self.served.model.config, ("n_vocab", "n_embd", "n_layer")
        meta = {"n_ctx": self.served.engine.n_ctx, **{field: getattr(config, field) for field in fields}}
        return {"id": name, "object": "model", "created": self.served.created, "owned_by": "sis", "meta": meta}

    @answered
    async def health(self, request: Request) -> Response:
        alive = self.served.engine.alive
        return Answer({"status": "ok" if alive else "stopped"}, status_code=200 if alive else 503)

    @answered
    async def tokenize(self, request: Request) -> Response:
        asked, _ = await self.read(request, Tokenize, samplers=False)
        if (asked.content is None) == (asked.messages is None):
            raise ApiError(400, "give content or messages", param="content")
        return Answer(await self.work(self._tokenized, asked))

    def _tokenized(self, asked: Tokenize) -> dict[str, Any]:
        model = self.served.model
        found: dict[str, Any] = {}
        if asked.content is not None:
            tokens = model.tokenize(asked.content, add_special=asked.add_special, parse_special=asked.parse_special)
        else:
            chatting = Chatting(asked.messages or (), template_options=asked.chat_template_kwargs)
            rendered = chat_asked.render(self.served, chatting, asked.tools)
            tokens, found = list(rendered.tokens), {"prompt": rendered.text}
        if asked.with_pieces:
            found["pieces"] = [model.tokenizer.token_text(token) for token in tokens]
        return {"tokens": tokens, "n_tokens": len(tokens), **found}

    @answered
    async def detokenize(self, request: Request) -> Response:
        asked, _ = await self.read(request, Detokenize, samplers=False)
        return Answer({"content": await self.work(self.served.model.detokenize, asked.tokens)})

    @answered
    async def metrics(self, request: Request) -> Response:
        return Response(self.served.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @answered
    async def props(self, request: Request) -> Response:
        served = self.served
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
    async def slots(self, request: Request) -> Response:
        return Answer(self.served.engine.texts())


def make_app(served: Served, rules: Rules, limits: Limits) -> Starlette:
    """The ASGI application over a model whose engine runs."""
    api = Api(served, limits)
    routes = [
        Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/responses", api.responses, methods=["POST"]),
        Route("/v1/messages", api.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", api.count_tokens, methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/detokenize", api.detokenize, methods=["POST"]),
        Route("/", page),
        Route("/page/{name}", page),
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/props", api.props),
        Route("/slots", api.slots),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, rules=rules)],
        exception_handlers={HTTPException: _no_route},
    )


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(ApiError(error.status_code, f"{request.method} {request.url.path:.100}: {error.detail}"))
