"""The application: which path is answered by whom."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sis_core.chat import ReplyParser
from sis_core.texts.request import Request as TextRequest
from sis_server import (
    anthropic_fields,
    chat_asked,
    openai_chat,
    openai_embeddings,
    openai_text,
    responses_fields,
)
from sis_server.about import About
from sis_server.answering import Answer, answered, answered_to, refusal, streamed, unless_gone
from sis_server.anthropic_messages import MessageWriter
from sis_server.chat_asked import Chatting
from sis_server.errors import ApiError
from sis_server.fields import (
    ApplyTemplate,
    ChatCompletion,
    Detokenize,
    Embeddings,
    TextCompletion,
    Tokenize,
    read_fields,
)
from sis_server.following import Heard, PlainText, follow
from sis_server.guard import Guard, Rules
from sis_server.metrics import Metrics
from sis_server.models import Holding, Models
from sis_server.pages import page
from sis_server.reading import read_object
from sis_server.receiving import Limits, read_body
from sis_server.responses import Kept, ResponseWriter, Store
from sis_server.served import Served
from sis_server.tracing import Traced, Traces

T = TypeVar("T")
WORKERS = 4  # requests that are rendered, tokenised and compiled at once


class Writer(Protocol):
    """How an API writes replies."""

    def whole(self, heard: AsyncIterator[Heard]) -> Awaitable[Mapping[str, Any]]: ...

    def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[str | None, Any]]: ...


class Api:
    """Endpoints over the models of a server."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models, self._limits = models, limits
        self._workers = anyio.CapacityLimiter(WORKERS)
        self._responses = Store()

    async def read(
        self, request: Request, kind: type[Any], *, samplers: bool = True
    ) -> tuple[Served, Any, dict[str, Any]]:
        """The model that is asked, a request's own fields, and those for samplers where there are any."""
        body = read_object(await read_body(request, self._limits))
        name = body.get("model")
        if name is not None and not isinstance(name, str):
            raise ApiError(400, "is not the name of a model", param="model")
        served = await self._models.use(name, request.state.held)
        request.state.trace.model = served.id
        asked, sampling = read_fields(kind, body, served.sampler_options if samplers else {})
        if samplers and asked.sampler is not None:
            sampling["sampler"] = asked.sampler
        return served, asked, sampling

    async def work(self, function: Callable[..., T], *args: Any) -> T:
        """Run what takes long, away from the event loop."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._workers)

    async def chat(self, request: Request, served: Served, chatting: Chatting) -> tuple[int, AsyncGenerator[Heard]]:
        """Tokens of a chat, and its replies, which are on their way."""
        requests, parsers = await self.work(chat_asked.prepare, served, chatting)
        return len(requests[0].prompt), self.run(request, served, requests, parsers)

    def run(
        self, request: Request, served: Served, texts: Sequence[TextRequest], parsers: Sequence[ReplyParser]
    ) -> AsyncGenerator[Heard]:
        """What is heard of the texts of a request, which end when it is answered; ApiError when too many wait."""
        state = request.state
        return follow(served.engine, served.waits, texts, parsers, state.trace, state.held)

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
        served, asked, sampling = await self.read(request, ChatCompletion)
        _, heard = await self.chat(request, served, openai_chat.read(asked, sampling, request.state.salt))
        writer = openai_chat.ChatWriter(served.id, served.model.tokenizer, asked)
        return await self.answer(request, writer, heard, stream=asked.stream)

    @answered
    async def completions(self, request: Request) -> Response:
        served, asked, sampling = await self.read(request, TextCompletion)
        requests = await self.work(openai_text.prepare, served, asked, sampling, request.state.salt)
        heard = self.run(request, served, requests, [PlainText() for _ in requests])
        writer = openai_text.TextWriter(served, asked, requests)
        return await self.answer(request, writer, heard, stream=asked.stream)

    @answered
    async def embeddings(self, request: Request) -> Response:
        served, asked, _ = await self.read(request, Embeddings, samplers=False)
        requests = await self.work(openai_embeddings.prepare, served, asked)
        heard = self.run(request, served, requests, [PlainText() for _ in requests])
        async with contextlib.aclosing(heard):
            return Answer(await unless_gone(request, openai_embeddings.write(served, asked, requests, heard)))

    @answered
    async def responses(self, request: Request) -> Response:
        served, asked, sampling = await self.read(request, responses_fields.Response)
        salt = request.state.salt
        before = self._responses.items(asked.previous_response_id, salt)
        _, heard = await self.chat(request, served, responses_fields.read(asked, before, sampling, salt))

        def keep(id: str, output: Sequence[responses_fields.Item]) -> None:
            if asked.store:
                self._responses.add(id, Kept(salt, [*before, *responses_fields.items_of(asked), *output]))

        writer = ResponseWriter(served.id, asked, keep)
        return await self.answer(
            request, writer, heard, stream=asked.stream, error_event="error", body=ApiError.of_stream
        )

    @answered_to(ApiError.anthropic)
    async def messages(self, request: Request) -> Response:
        served, asked, sampling = await self.read(request, anthropic_fields.Message)
        chatting = anthropic_fields.read(asked, sampling, request.state.salt)
        n_prompt, heard = await self.chat(request, served, chatting)
        writer = MessageWriter(served.id, n_prompt, chatting.stop)
        return await self.answer(
            request, writer, heard, stream=asked.stream, error_event="error", body=ApiError.anthropic
        )

    @answered_to(ApiError.anthropic)
    async def count_tokens(self, request: Request) -> Response:
        served, asked, sampling = await self.read(request, anthropic_fields.MessageTokens)
        chatting = anthropic_fields.read(asked, sampling, request.state.salt)
        requests, _ = await self.work(chat_asked.prepare, served, chatting)
        return Answer({"input_tokens": len(requests[0].prompt)})

    @answered
    async def tokenize(self, request: Request) -> Response:
        served, asked, _ = await self.read(request, Tokenize, samplers=False)
        if sum(given is not None for given in (asked.content, asked.prompt, asked.messages)) != 1:
            raise ApiError(400, "give one of content, prompt and messages", param="content")
        return Answer(await self.work(_tokenized, served, asked))

    @answered
    async def apply_template(self, request: Request) -> Response:
        served, asked, _ = await self.read(request, ApplyTemplate, samplers=False)
        return Answer(await self.work(_rendered, served, asked))

    @answered
    async def detokenize(self, request: Request) -> Response:
        served, asked, _ = await self.read(request, Detokenize, samplers=False)
        text = await self.work(served.model.detokenize, asked.tokens)
        return Answer({"content": text, "prompt": text})


def _tokenized(served: Served, asked: Tokenize) -> dict[str, Any]:
    model = served.model
    found: dict[str, Any] = {}
    if asked.prompt is not None:
        tokens = model.tokenize(asked.prompt, add_special=asked.add_special_tokens, parse_special=True)
    elif asked.content is not None:
        tokens = model.tokenize(asked.content, add_special=asked.add_special, parse_special=asked.parse_special)
    else:
        found = _rendered(served, asked)
        tokens = found["tokens"]
    if asked.with_pieces:
        found["pieces"] = [model.tokenizer.token_text(token) for token in tokens]
    return {"tokens": tokens, "n_tokens": len(tokens), **found}


def _rendered(served: Served, asked: Tokenize | ApplyTemplate) -> dict[str, Any]:
    chatting = Chatting(asked.messages or (), template_options=asked.chat_template_kwargs)
    rendered = chat_asked.render(served, chatting, asked.tools)
    return {"prompt": rendered.text, "tokens": list(rendered.tokens)}


def make_app(models: Models, metrics: Metrics, rules: Rules, limits: Limits) -> Starlette:
    """The ASGI application over models."""
    traces = Traces()
    api, about = Api(models, limits), About(models, metrics, traces)
    routes = [
        Route("/v1/chat/completions", api.chat_completions, methods=["POST"]),
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/responses", api.responses, methods=["POST"]),
        Route("/v1/messages", api.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", api.count_tokens, methods=["POST"]),
        Route("/v1/models", about.models),
        Route("/v1/models/{name:path}", about.model),
        Route("/tokenize", api.tokenize, methods=["POST"]),
        Route("/apply-template", api.apply_template, methods=["POST"]),
        Route("/detokenize", api.detokenize, methods=["POST"]),
        Route("/", page),
        Route("/page/{name}", page),
        Route("/health", about.health),
        Route("/metrics", about.metrics),
        Route("/props", about.props),
        Route("/slots", about.slots),
        Route("/traces/{id}", about.trace),
        Route("/tokenizer_info", about.tokenizer_info),
        Route("/openapi.json", about.openapi),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, rules=rules), Middleware(Traced, traces=traces), Middleware(Holding)],
        exception_handlers={HTTPException: _no_route},
    )


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(ApiError(error.status_code, f"{request.method} {request.url.path:.100}: {error.detail}"))
