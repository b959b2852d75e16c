"""GET /openapi.json: what this server answers, for programs that make or check clients.

The bodies are those of the structs that read requests, so that they cannot differ; what those leave open (messages are
objects there, since templates decide) is narrowed here to what every model can read. The options of samplers are those
of the model that a request without a name gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from sis_core.texts.chain_text import SamplerOption
from sis_server import anthropic_fields, responses_fields
from sis_server.fields import ApplyTemplate, ChatCompletion, Detokenize, Embeddings, TextCompletion, Tokenize

BODIES: Mapping[str, tuple[type[Any], str]] = {
    "/v1/chat/completions": (ChatCompletion, "A chat goes on (OpenAI)."),
    "/v1/completions": (TextCompletion, "Texts go on (OpenAI)."),
    "/v1/embeddings": (Embeddings, "Vectors of texts (OpenAI)."),
    "/v1/responses": (responses_fields.Response, "A chat goes on (OpenAI's Responses)."),
    "/v1/messages": (anthropic_fields.Message, "A chat goes on (Anthropic)."),
    "/v1/messages/count_tokens": (anthropic_fields.MessageTokens, "How long a chat is (Anthropic)."),
    "/tokenize": (Tokenize, "A text or a chat as token ids."),
    "/apply-template": (ApplyTemplate, "A chat as the text and the token ids that the model reads."),
    "/detokenize": (Detokenize, "Token ids as a text."),
}
SAMPLED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens")
READ = {
    "/v1/models": "What is offered.",
    "/health": "Whether it lives.",
    "/props": "Of one model.",
    "/slots": "What is on its way.",
    "/tokenizer_info": "Of one model's tokens.",
    "/metrics": "For Prometheus.",
}
_TEXT = {"type": "string", "maxLength": 1024}
_TALK = {
    "type": "array", "minItems": 1, "maxItems": 16,
    "items": {
        "type": "object", "required": ["role", "content"], "additionalProperties": False,
        "properties": {"role": {"enum": ["user", "assistant"]}, "content": {**_TEXT, "minLength": 1}},
    },
}  # fmt: skip
_WORDS = {**_TEXT, "minLength": 1}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_PARAMETERS = {"type": "object", "required": ["type"], "properties": {"type": {"const": "object"}}}


def _objects(**properties: Any) -> dict[str, Any]:
    """A short list of objects that have all of these."""
    each = {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}
    return {"type": "array", "maxItems": 8, "items": each}


_FUNCTION = {"type": "object", "required": ["name"], "properties": {"name": _NAME, "parameters": _PARAMETERS}}
_ANTHROPIC = {"tools": _objects(name=_NAME, input_schema=_PARAMETERS), "system": _TEXT, "messages": _TALK}
_CHOICE = {"enum": ["auto", "none"]}  # what else is allowed depends on the tools


def _narrowed(n_vocab: int) -> Mapping[str, Mapping[str, Any]]:
    """What can be said of fields by path beyond their types."""
    token = {"type": "integer", "minimum": 0, "maximum": n_vocab - 1}
    tokens = {"type": "array", "minItems": 1, "maxItems": 512, "items": token}
    texts = {"anyOf": [_WORDS, {"type": "array", "minItems": 1, "maxItems": 16, "items": _WORDS}, tokens]}
    functions = _objects(type={"const": "function"}, function=_FUNCTION)
    return {
        "/v1/chat/completions": {
            "messages": _TALK,
            "tools": functions,
            "tool_choice": _CHOICE,
            "response_format": {"type": "object", "properties": {"type": {"const": "json_object"}},
                                "required": ["type"]},
        },
        "/v1/completions": {"prompt": texts},
        "/v1/embeddings": {"input": texts},
        "/v1/responses": {
            "input": {"anyOf": [_WORDS, _TALK]},
            "tools": _objects(type={"const": "function"}, name=_NAME, parameters=_PARAMETERS),
            "tool_choice": _CHOICE,
        },
        "/v1/messages": _ANTHROPIC,
        "/v1/messages/count_tokens": _ANTHROPIC,
        "/tokenize": {"messages": _TALK, "tools": functions},
        "/apply-template": {"messages": _TALK, "tools": functions},
        "/detokenize": {"tokens": {"type": "array", "items": token}},
    }  # fmt: skip


def document(options: Mapping[str, SamplerOption], names: Sequence[str], n_vocab: int) -> dict[str, Any]:
    """The document, in OpenAPI 3.1, for models of these names; ``n_vocab`` is the first's."""
    kinds = [kind for kind, _ in BODIES.values()]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for path, kind in zip(BODIES, kinds, strict=True):
        properties = components[kind.__name__]["properties"]
        properties.update(_narrowed(n_vocab).get(path, {}))
        if path in SAMPLED:
            properties.update({name: _option(option) for name, option in options.items() if _option(option)})
        properties["model"] = {"enum": list(names)}
        if "sampler" in properties:
            properties["sampler"] = {"enum": sorted({option.sampler.name for option in options.values()})}
    components["Tokenize"]["oneOf"] = [{"required": [name]} for name in ("content", "prompt", "messages")]
    paths: dict[str, Any] = {
        path: {"post": _operation(path, about, {"requestBody": _json(schema, required=True)})}
        for (path, (_, about)), schema in zip(BODIES.items(), schemas, strict=True)
    }
    paths |= {path: {"get": _operation(path, about, {})} for path, about in READ.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "sis serve", "version": version("sis-server")},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, about: str, more: Mapping[str, Any]) -> dict[str, Any]:
    refused = {"4XX": {"description": "The request cannot be answered, and why."},
               "503": {"description": "Too many wait, or there is no memory: come back later."}}  # fmt: skip
    return {"summary": about, "operationId": path.strip("/").replace("/", "_"), **more,
            "responses": {"200": {"description": "The answer."}, **refused}}  # fmt: skip


def _json(schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}, **more}


def _option(option: SamplerOption) -> dict[str, Any]:
    """A number's or flag's schema; empty for other kinds."""
    kinds: dict[Any, str] = {int: "integer", float: "number", bool: "boolean"}
    kind = kinds.get(option.field.type)
    if kind is None:
        return {}
    about = option.field.metadata
    bounds = {"minimum": about.get("low"), "maximum": about.get("high")}
    found = {name: bound for name, bound in bounds.items() if isinstance(bound, int | float) and abs(bound) < 1e30}
    return {"type": kind, "description": about.get("help", ""), **found}
