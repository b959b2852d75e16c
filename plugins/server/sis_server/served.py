"""A model that is served: how its chats are written, which fields its samplers bring, and the engine that runs it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sis_core.chat import Chat
from sis_core.errors import ChatError
from sis_core.sampler import SamplerContext
from sis_core.texts.chain_text import SamplerOption
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Request
from sis_server.engine import Engine
from sis_server.engines import Engines
from sis_server.errors import ApiError
from sis_server.metrics import Metrics
from sis_server.sampling import request_options


class Served:
    """One model and its engine.

    Args:
        names: what requests may call it; the first is its id.
        template: a chat format or file that takes the place of the model's own template.
        cache_tokens: what the cache holds over all texts.
        stall: seconds that texts may wait for the prompts of others in one step.
        queue_limit: requests that may wait.
        metrics: where its counts are kept; None for its own.
        n_engines: engines that share the model: as many as it has stages.
    """

    def __init__(
        self,
        model: LanguageModel,
        names: tuple[str, ...],
        *,
        template: str | None = None,
        cache_tokens: int,
        stall: float | None,
        queue_limit: int,
        metrics: Metrics | None = None,
        n_engines: int = 1,
    ) -> None:
        self.model, self.names, self.created = model, names, int(time.time())
        self.sampler_options: Mapping[str, SamplerOption] = request_options(model.registry)
        self.cache_tokens = cache_tokens
        self._chat: Chat | ChatError
        try:
            self._chat = model.chat_format(template)
        except ChatError as error:
            if template is not None:
                raise
            self._chat = error
        own_queue = -(-queue_limit // n_engines)
        own_tokens = max(cache_tokens // n_engines, min(cache_tokens, model.config.n_ctx))  # at least a whole text
        engines = [
            Engine(lambda: model.scheduler(max_tokens=own_tokens, stall=stall), queue_limit=own_queue)
            for _ in range(n_engines)
        ]
        self.engine: Engine | Engines = engines[0] if n_engines == 1 else Engines(engines)
        self.metrics = metrics or Metrics()
        self.waits = self.metrics.watch(self.id, self.engine)

    def close(self) -> None:
        """End its engine, whatever it does, and free the model. Slow: for a worker."""
        self.engine.close()
        self.metrics.forget(self.id, self.engine)
        self.model.close()

    @property
    def id(self) -> str:
        return self.names[0]

    @property
    def chat(self) -> Chat:
        """How its chats are written; ChatError where nobody knows."""
        if isinstance(self._chat, ChatError):
            raise self._chat
        return self._chat

    @property
    def chat_line(self) -> str:
        """One line on its chats."""
        return str(self._chat) if isinstance(self._chat, ChatError) else self._chat.describe()

    def checked(self, request: Request) -> Request:
        """The request, once it is sure that it can start: it fits, its ids exist, and its grammars are compiled.

        Slow where a grammar is new: not for the engine's thread, nor for an event loop.
        """
        model, n_vocab = self.model, self.model.config.n_vocab
        if not request.prompt:
            raise ApiError(400, "the prompt is empty", param="prompt")
        bad = next((token for token in request.prompt if not 0 <= token < n_vocab), None)
        if bad is not None:
            raise ApiError(400, f"{bad} is not a token id below {n_vocab}", param="prompt")
        if len(request.prompt) > self.engine.n_ctx and not request.outgrows:
            raise ApiError(
                400,
                f"the prompt has {len(request.prompt)} tokens, and the context {self.engine.n_ctx}",
                code="context_length_exceeded",
                param="prompt",
            )
        context = SamplerContext(n_vocab, request.prompt, model.tokenizer, request.seed)
        for sampler in request.samplers:
            sampler.start(context)
        return request


def options_of_page(options: Mapping[str, SamplerOption]) -> list[dict[str, Any]]:
    """Numbers and flags among the options of samplers, as a page can show them."""
    kinds = {int: "integer", float: "number", bool: "boolean"}
    return [
        {
            "name": name,
            "sampler": option.sampler.name,
            "type": kinds[option.field.type],
            "default": option.field.default,
            "on": option.sampler.default,
            "help": option.field.metadata.get("help", ""),
            "low": _bound(option.field.metadata.get("low")),
            "high": _bound(option.field.metadata.get("high")),
        }
        for name, option in options.items()
        if option.field.type in kinds
    ]


def _bound(value: Any) -> float | None:
    return value if isinstance(value, int | float) and abs(value) < 1e30 else None
