"""Fields of requests: which are used, which are accepted and ignored, and that all others are refused.

Each API has a struct of the fields it uses. `IGNORED` names those that clients send and that change nothing here.
Options of samplers are fields by their own names, whatever samplers are installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from sis_core.errors import suggest
from sis_core.texts.chain_text import SamplerOption
from sis_server.errors import ApiError

T = TypeVar("T", bound="Asked")

IGNORED = {
    "cache_prompt": "beginnings are always reused",
    "client_metadata": "the client's own",
    "include": "nothing that could be left out",
    "metadata": "the client's own",
    "parallel_tool_calls": "the model's template decides",
    "prompt_cache_key": "beginnings are found by their text",
    "prompt_cache_retention": "beginnings stay as long as there is room",
    "reasoning_effort": "a template's own options come by chat_template_kwargs",
    "safety_identifier": "no accounts",
    "store": "nothing is stored",
    "user": "no accounts",
    "verbosity": "the prompt says it",
}

PRIORITIES = {"flex": -1, "priority": 1}
"""Of requests by their ``service_tier``: what can wait, and what should not; all others are equal."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Stop | Annotated[list[Stop], Meta(max_length=16)]
MAX_BIASES = 1024


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a stream brings beside its text."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against readers of traffic: there is none


class Asked(Struct, kw_only=True, forbid_unknown_fields=True):
    """What every API that generates has."""

    model: str | None = None
    stream: bool = False
    ignore_eos: bool = False
    sampler: str | None = None  # one by its name, such as mirostat, in place of those that choose by default
    service_tier: Literal["auto", "default", "standard_only", "scale", "flex", "priority"] = "auto"

    @property
    def priority(self) -> int:
        """Those with more are let in first and give way last."""
        return PRIORITIES.get(self.service_tier, 0)


class OpenAI(Asked, kw_only=True, forbid_unknown_fields=True):
    """What OpenAI's two older APIs share."""

    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    stop: Stops = msgspec.field(default_factory=list)
    seed: Seed | None = None
    n: Annotated[int, Meta(ge=1, le=16)] = 1
    response_format: dict[str, Any] | None = None


class ChatCompletion(OpenAI, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions"""

    messages: list[dict[str, Any]]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    continue_final_message: bool = False


class TextCompletion(OpenAI, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions"""

    prompt: str | list[str | int | list[int]]  # a text, ids, texts, or lists of ids
    echo: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Literal[1] = 1


class Embeddings(Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/embeddings"""

    model: str | None = None
    input: str | list[str | int | list[int]]  # a text, ids, texts, or lists of ids
    encoding_format: Literal["float", "base64"] = "float"


class Tokenize(Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /tokenize: a text, or messages as the model would read them.

    ``content`` and its options are llama-server's; ``prompt`` and its own are vLLM's, which reads control tokens.
    """

    model: str | None = None
    content: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    add_special: bool = True
    parse_special: bool = False
    with_pieces: bool = False
    add_special_tokens: bool = True


class ApplyTemplate(Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /apply-template, as llama-server has it: messages as the model would read them."""

    messages: list[dict[str, Any]]
    model: str | None = None
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class Detokenize(Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /detokenize"""

    model: str | None = None
    tokens: list[int]


def read_fields(
    kind: type[Any], body: Mapping[str, Any], samplers: Mapping[str, SamplerOption]
) -> tuple[Any, dict[str, Any]]:
    """A request as its struct, and apart from it what is for samplers. Fields that are null were not given.

    ApiError 400 names the field that is unknown or has another type or range.
    """
    given = {name: value for name, value in body.items() if value is not None}
    known = set(kind.__struct_fields__)
    options = {name: given.pop(name) for name in list(given) if name in samplers and name not in known}
    for name in list(given):
        if name in known:
            continue
        if name not in IGNORED:
            hint = suggest(name, sorted(known | set(samplers)))
            raise ApiError(400, f"there is no field {name!r:.80}{hint}", code="unknown_parameter", param=name[:80])
        del given[name]
    try:
        return msgspec.convert(given, kind), options
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error), param=_place(str(error))) from None


def _place(message: str) -> str | None:
    """The field in a message of msgspec's: ``… - at `$.stop[0]```."""
    _, found, place = message.rpartition("`$.")
    return place.rstrip("`") if found else None
