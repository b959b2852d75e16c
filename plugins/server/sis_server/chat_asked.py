"""From the messages of any API to requests that the engine can run, and what reads their replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from sis_core.chat import Message, Rendered, ReplyParser, Tool, ToolChoice
from sis_core.errors import ChatError
from sis_core.texts.conversation import constrained, with_system
from sis_core.texts.request import Request
from sis_server.errors import ApiError
from sis_server.following import PlainText
from sis_server.sampling import GRAMMARS, chain_of
from sis_server.served import Served

ROLES = ("system", "developer", "user", "assistant", "tool")
OURS = frozenset(("self", "messages", "tools", "continue_last"))


@frozen
class Chatting:
    """A reply that is asked for, whatever the API.

    Attributes:
        sampling: options of samplers by the names of request fields.
        salt: of the caller's key; see `Request`.
        priority: see `Request`.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    sampling: Mapping[str, Any] = field(factory=dict)
    template_options: Mapping[str, Any] = field(factory=dict)
    continue_last: bool = False
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    ignore_end: bool = False
    salt: str = ""
    priority: int = 0


def prepare(served: Served, asked: Chatting) -> tuple[list[Request], list[ReplyParser]]:
    """Requests and parsers for ``asked.n`` replies. Slow: for a worker.

    Raises:
        ApiError, SisError: what the template, the samplers and the context refuse.
    """
    tools = () if asked.tool_choice == "none" else asked.tools
    held = any(name in asked.sampling for name in GRAMMARS)
    if held and tools:
        raise ApiError(400, "a reply that is held to a schema cannot call tools", param="response_format")
    rendered = render(served, asked, tools)
    request = make_request(served, list(rendered.tokens), asked, stop=(*rendered.stop, *asked.stop), spell_special=True)
    if tools and (constraint := served.chat.constraint(tools, asked.tool_choice, rendered)) is not None:
        request = constrained(request, constraint)
    served.checked(request)
    requests = [attrs.evolve(request, seed=(request.seed + i) % 2**64) for i in range(asked.n)]
    parsers = [PlainText() if held else served.chat.parser(rendered) for _ in requests]
    return requests, parsers


def render(served: Served, asked: Chatting, tools: Sequence[Tool]) -> Rendered:
    """The chat as the model reads it; ApiError for what a template must not be given, and for what it refuses."""
    for name in asked.template_options:
        if name in OURS:
            raise ApiError(400, f"{name} is not a template's own option", param="chat_template_kwargs")
    for i, message in enumerate(asked.messages):
        if message.get("role") not in ROLES:
            raise ApiError(400, f"the role is {message.get('role')!r:.80}, not one of {', '.join(ROLES)}",
                           param=f"messages[{i}].role")  # fmt: skip
    own = {"continue_last": True} if asked.continue_last else {}
    try:
        return served.chat.render(with_system(served.model, asked.messages), tools, **asked.template_options, **own)
    except ChatError as error:
        raise ApiError(400, str(error), param="messages") from None


def make_request(served: Served, tokens: list[int], asked: Chatting, **changes: Any) -> Request:
    """A request with the sampling that is asked for."""
    model = served.model
    preset = {} if "sampler" in asked.sampling else model.preset.options
    chain = chain_of(model.registry, {**preset, **asked.sampling}, served.sampler_options, model.config.n_vocab)
    return model.request(
        tokens,
        sampler=chain,
        max_tokens=asked.max_tokens,
        seed=None if asked.seed is None else asked.seed % 2**64,
        logprobs=asked.logprobs,
        ignore_end=asked.ignore_end,
        salt=asked.salt,
        priority=asked.priority,
        **({"stop": asked.stop} | changes),
    )
