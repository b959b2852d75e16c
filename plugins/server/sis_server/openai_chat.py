"""POST /v1/chat/completions

Facts of the format: OpenAI's API reference, "Chat" (platform.openai.com/docs/api-reference/chat).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from sis_core.chat import CallArguments, CallStart, Content, Event, Finish, Reasoning, Reply, Usage
from sis_core.tokenizer import Tokenizer
from sis_server.chat_asked import Chatting
from sis_server.errors import ApiError
from sis_server.fields import ChatCompletion
from sis_server.following import Heard
from sis_server.logprobs import of_chat
from sis_server.sampling import format_options

FINISH = {"end": "stop", "stop": "stop", "length": "length", "context": "length", "tool_calls": "tool_calls"}


def read(asked: ChatCompletion, sampling: dict[str, Any], salt: str) -> Chatting:
    """What a request asks for; ApiError for fields that contradict each other."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs", param="top_logprobs")
    if asked.max_tokens and asked.max_completion_tokens not in (None, asked.max_tokens):
        raise ApiError(400, "is not max_completion_tokens, its newer name", param="max_tokens")
    tools, choice = asked.tools, asked.tool_choice
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(name, str):
            raise ApiError(400, "is neither auto, none, required nor a function", param="tool_choice")
        choice = name
    elif choice not in ("auto", "none", "required"):
        raise ApiError(400, "is neither auto, none, required nor a function", param="tool_choice")
    if choice not in ("auto", "none") and not tools:
        raise ApiError(400, "there are no tools to choose from", param="tool_choice")
    return Chatting(
        asked.messages,
        tools,
        choice,
        sampling | format_options(asked.response_format),
        asked.chat_template_kwargs,
        asked.continue_final_message,
        asked.max_completion_tokens or asked.max_tokens,
        (asked.stop,) if isinstance(asked.stop, str) else asked.stop,
        asked.seed,
        asked.n,
        (asked.top_logprobs or 0) if asked.logprobs else None,
        asked.ignore_eos,
        salt,
        asked.priority,
    )


def usage_of(usages: list[Usage]) -> dict[str, Any]:
    """Tokens of all replies to one prompt."""
    prompt, cached = usages[0].n_prompt, max(usage.n_cached for usage in usages)
    generated = sum(usage.n_generated for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class ChatWriter:
    """Writes the replies to one request.

    Args:
        model: its id.
    """

    def __init__(self, model: str, tokenizer: Tokenizer, asked: ChatCompletion) -> None:
        self._tokenizer, self._asked = tokenizer, asked
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    async def whole(self, heard: AsyncIterator[Heard]) -> dict[str, Any]:
        """The answer, when all has been heard."""
        n = self._asked.n
        events: list[list[Event]] = [[] for _ in range(n)]
        logprobs: list[list[dict[str, Any]]] = [[] for _ in range(n)]
        async for said in heard:
            events[said.index] += said.events
            if said.piece.logprob is not None:
                logprobs[said.index].append(of_chat(said.piece, self._tokenizer))
        replies = [Reply.of(part) for part in events]
        choices = [
            {
                "index": i,
                "message": self._message(reply),
                "logprobs": {"content": logprobs[i]} if self._asked.logprobs else None,
                "finish_reason": FINISH[reply.finish_reason],
            }
            for i, reply in enumerate(replies)
        ]
        usage = usage_of([reply.usage for reply in replies if reply.usage is not None])
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def _message(self, reply: Reply) -> dict[str, Any]:
        message = dict(reply.message)
        if "tool_calls" in message and not message["content"]:
            message["content"] = None
        return {**message, "refusal": None}

    async def events(self, heard: AsyncGenerator[Heard]) -> AsyncGenerator[tuple[None, Any]]:
        """The answer as it comes."""
        wants_usage = self._asked.stream_options is not None and self._asked.stream_options.include_usage
        usages: list[Usage] = []
        for index in range(self._asked.n):
            yield None, self._chunk(index, {"role": "assistant", "content": ""})
        async for said in heard:
            logprobs = None
            if said.piece.logprob is not None:
                logprobs = {"content": [of_chat(said.piece, self._tokenizer)]}
            for event in said.events:
                if isinstance(event, Finish):
                    if event.usage is not None:
                        usages.append(event.usage)
                    yield None, self._chunk(said.index, {}, logprobs, FINISH[event.reason])
                elif (delta := _delta(event)) is not None:
                    yield None, self._chunk(said.index, delta, logprobs)
                else:
                    continue
                logprobs = None
            if logprobs is not None:  # a token whose text is held back
                yield None, self._chunk(said.index, {"content": ""}, logprobs)
        if wants_usage:
            yield None, {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_of(usages)}
        yield None, "[DONE]"

    def _chunk(self, index: int, delta: Any, logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def _delta(event: Event) -> dict[str, Any] | None:
    match event:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallStart(index, id, name):
            call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    return None
