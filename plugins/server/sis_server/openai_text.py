"""POST /v1/completions

Facts of the format: OpenAI's API reference, "Completions" (platform.openai.com/docs/api-reference/completions).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import attrs

from sis_core.chat import Content, Finish, Usage
from sis_core.texts.request import Piece, Request
from sis_server.chat_asked import Chatting, make_request
from sis_server.errors import ApiError
from sis_server.fields import TextCompletion
from sis_server.following import Heard
from sis_server.logprobs import OfText
from sis_server.openai_chat import FINISH
from sis_server.sampling import format_options
from sis_server.served import Served

MAX_PROMPTS = 128
MAX_TOKENS = 16  # where the request does not say


def prompts_of(
    given: str | list[str | int | list[int]], served: Served, field: str = "prompt", most: int = MAX_PROMPTS
) -> list[list[int]]:
    """Token ids of each prompt: a text, ids, texts, or lists of ids. ApiError names the field."""
    if isinstance(given, str) or (given and all(isinstance(part, int) for part in given)):
        given = cast("list[str | int | list[int]]", [given])
    if not given or len(given) > most or "" in given or any(isinstance(prompt, int) for prompt in given):
        raise ApiError(400, f"is not from one to {most} prompts that are not empty", param=field)
    listed = cast("list[str | list[int]]", given)
    return [served.model.tokenize(prompt) if isinstance(prompt, str) else prompt for prompt in listed]


def prepare(served: Served, asked: TextCompletion, sampling: dict[str, Any], salt: str) -> list[Request]:
    """A request for each prompt and each of its ``n`` texts. Slow: for a worker."""
    chatting = Chatting(
        (),
        sampling=sampling | format_options(asked.response_format),
        max_tokens=asked.max_tokens or MAX_TOKENS,
        stop=(asked.stop,) if isinstance(asked.stop, str) else asked.stop,
        seed=asked.seed,
        logprobs=asked.logprobs,
        ignore_end=asked.ignore_eos,
        salt=salt,
        priority=asked.priority,
    )
    echoed = asked.logprobs if asked.echo else None
    requests = []
    for tokens in prompts_of(asked.prompt, served):
        request = served.checked(make_request(served, tokens, chatting, prompt_logprobs=echoed))
        requests += [attrs.evolve(request, seed=(request.seed + i) % 2**64) for i in range(asked.n)]
    return requests


class TextWriter:
    """Writes the texts of one request."""

    def __init__(self, served: Served, asked: TextCompletion, requests: list[Request]) -> None:
        self._asked = asked
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.id,
        }
        self._tokenizer = served.model.tokenizer
        self._prompts = [request.prompt for request in requests]
        self._echoes = [served.model.detokenize(prompt) if asked.echo else "" for prompt in self._prompts]
        self._logprobs = [OfText(self._tokenizer, 0 if asked.echo else len(echo)) for echo in self._echoes]
        self._begun = [False] * len(requests)

    async def whole(self, heard: AsyncIterator[Heard]) -> dict[str, Any]:
        """The answer, when all has been heard."""
        texts, reasons = list(self._echoes), [""] * len(self._echoes)
        usages: list[Usage | None] = [None] * len(texts)
        async for said in heard:
            self._note(said)
            for event in said.events:
                if isinstance(event, Content):
                    texts[said.index] += event.text
                elif isinstance(event, Finish):
                    reasons[said.index], usages[said.index] = FINISH[event.reason], event.usage
        choices = [
            {
                "index": i,
                "text": text,
                "logprobs": self._logprobs[i].take() if self._asked.logprobs is not None else None,
                "finish_reason": reasons[i],
            }
            for i, text in enumerate(texts)
        ]
        return {**self._head, "choices": choices, "usage": self._usage(usages)}

    async def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[None, Any]]:
        """The answer as it comes."""
        usages: list[Usage | None] = [None] * len(self._echoes)
        async for said in heard:
            text = "" if self._begun[said.index] else self._echoes[said.index]
            self._note(said)
            text += "".join(event.text for event in said.events if isinstance(event, Content))
            reason = None
            for event in said.events:
                if isinstance(event, Finish):
                    reason, usages[said.index] = FINISH[event.reason], event.usage
            wants = self._asked.logprobs is not None
            if text or reason or wants:
                logprobs = self._logprobs[said.index].take() if wants else None
                choice = {"index": said.index, "text": text, "logprobs": logprobs, "finish_reason": reason}
                yield None, {**self._head, "choices": [choice]}
        if self._asked.stream_options is not None and self._asked.stream_options.include_usage:
            yield None, {**self._head, "choices": [], "usage": self._usage(usages)}
        yield None, "[DONE]"

    def _note(self, said: Heard) -> None:
        """Add the probabilities of a piece, and those of the prompt before the first."""
        piece, logprobs = said.piece, self._logprobs[said.index]
        if not self._begun[said.index] and self._asked.echo and self._asked.logprobs is not None:
            self._note_prompt(piece, said.index)
        self._begun[said.index] = True
        if piece.token is not None and piece.logprob is not None:
            logprobs.add(piece.token, piece.logprob, piece.top)

    def _note_prompt(self, piece: Piece, index: int) -> None:
        logprobs = self._logprobs[index]
        logprobs.add(self._prompts[index][0], None, ())
        for found in piece.prompt_logprobs:
            logprobs.add(found.token, found.logprob, found.top)

    def _usage(self, usages: list[Usage | None]) -> dict[str, Any]:
        found = [usage for usage in usages if usage is not None]
        prompt = sum(usage.n_prompt for usage in found[:: self._asked.n])
        generated = sum(usage.n_generated for usage in found)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": sum(usage.n_cached for usage in found[:: self._asked.n])},
        }
