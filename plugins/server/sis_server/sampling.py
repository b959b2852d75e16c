"""From fields of a request to a chain of samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sis_core.errors import SamplerError, suggest
from sis_core.registry import Registry
from sis_core.sampler import Sampler, SamplerState
from sis_core.texts.chain_text import SamplerOption, make_chain, sampler_options
from sis_server.errors import ApiError
from sis_server.fields import MAX_BIASES

GRAMMARS = ("schema", "regex", "grammar", "compact_json")
_PLAIN = (int, float, bool)
NEUTRAL = {"temperature": 1, "top_p": 1, "min_p": 0}  # what clients send that want nothing changed


def request_options(registry: Registry) -> dict[str, SamplerOption]:
    """Options of samplers that a request may name.

    Numbers and flags, and what this module makes safe: a text option of a stranger's sampler might name a file.
    """
    known = {option.name: option for option in sampler_options(registry)}
    return {
        name: option
        for name, option in known.items()
        if option.field.type in _PLAIN or name in (*GRAMMARS, "logit_bias") or _is_texts(option)
    }


def _is_texts(option: SamplerOption) -> bool:
    return option.field.type == tuple[str, ...]


def chain_of(
    registry: Registry, given: Mapping[str, Any], known: Mapping[str, SamplerOption], n_vocab: int
) -> list[Sampler]:
    """The chain for options of a request, and for the ``sampler`` that it may name.

    ApiError or SamplerError names the one that is wrong.
    """
    options = dict(given)
    sampler = options.pop("sampler", None)
    if "logit_bias" in options:
        options["logit_bias"] = _biases(options["logit_bias"], n_vocab)
    if options.get("top_p") == 0:
        raise ApiError(400, "top_p is not above 0: with temperature 0 the likeliest token is chosen", param="top_p")
    if isinstance(options.get("top_k"), int) and options["top_k"] > n_vocab:
        raise ApiError(400, f"top_k is above the model's {n_vocab} tokens", param="top_k")
    if "schema" in options and not isinstance(options["schema"], dict | bool):
        raise ApiError(400, "is not a JSON schema as an object", param="schema")
    for name in ("grammar", "regex"):
        if name in options and not isinstance(options[name], str):
            raise ApiError(400, f"{name} is not a text", param=name)
    if "grammar" in options:
        options["grammar"] += "\n"  # a text, never the name of a file
    for name, option in known.items():
        if name in options and _is_texts(option):
            options[name] = _texts(name, options[name])
    if sampler in registry.names("samplers"):
        options = _beside(registry.get("samplers", sampler), options, known)
    try:
        return make_chain(registry, sampler, options=options)
    except SamplerError as error:
        raise ApiError(400, str(error), param=next((name for name in given if name in error.what), None)) from None


def _beside(named: type[Sampler], options: Mapping[str, Any], known: Mapping[str, SamplerOption]) -> dict[str, Any]:
    """The options that join a sampler which a request names, without those that ask for nothing else than it does.

    Clients send a temperature and a top_p whether anybody has set them or not. ApiError for one that contradicts it.
    """
    same = ("temperature",) if issubclass(named, SamplerState) and named.greedy else ()
    kept = {}
    for name, value in options.items():
        option = known.get(name)
        if option is None or option.sampler is named or named.joined_by(option.sampler):
            kept[name] = value
        elif isinstance(value, bool) or value not in (NEUTRAL.get(name), 0 if name in same else None):
            raise ApiError(
                400, f"{name} {value!r:.40} contradicts the sampler {named.name}: leave one of them out", param=name
            )
    return kept


def _biases(given: Any, n_vocab: int) -> tuple[tuple[int, float], ...]:
    if not isinstance(given, dict) or len(given) > MAX_BIASES:
        raise ApiError(400, f"logit_bias is not an object of at most {MAX_BIASES} token ids", param="logit_bias")
    pairs = []
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < n_vocab):
            raise ApiError(400, f"{key!r:.40} is not a token id below {n_vocab}", param="logit_bias")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise ApiError(400, f"the bias of {key} is not a number from -100 to 100", param="logit_bias")
        pairs.append((int(key), float(value)))
    return tuple(pairs)


def _texts(name: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or len(given) > 64 or not all(isinstance(t, str) and len(t) <= 1024 for t in given):
        raise ApiError(400, f"{name} is not a list of at most 64 short texts", param=name)
    return tuple(given)


OF_SCHEMA = frozenset(("name", "description", "schema", "strict"))
OF_FORMAT = {"text": frozenset(), "json_object": frozenset(("schema",)), "json_schema": OF_SCHEMA | {"json_schema"}}


def format_options(response_format: Mapping[str, Any] | None, param: str = "response_format") -> dict[str, Any]:
    """What OpenAI's ``response_format``, or another field of its form, asks of the grammar sampler.

    An object may have a schema too, as with llama-server.
    """
    if response_format is None:
        return {}
    kind = str(response_format.get("type"))
    if kind not in OF_FORMAT:
        raise ApiError(400, "is neither text, json_object nor json_schema with a schema", param=param)
    _check_known(response_format, OF_FORMAT[kind] | {"type"}, param)
    if kind == "text":
        return {}
    given = response_format.get("json_schema", response_format)
    if kind == "json_schema" and given is not response_format and isinstance(given, dict):
        _check_known(given, OF_SCHEMA, f"{param}.json_schema")
    schema = given.get("schema") if isinstance(given, dict) else None
    if schema is None and kind == "json_object":
        return {"schema": {"type": "object"}}
    if not isinstance(schema, dict):
        raise ApiError(400, "has no schema that is an object", param=param)
    return {"schema": schema}


def _check_known(given: Mapping[str, Any], known: frozenset[str], param: str) -> None:
    for name in given:
        if name not in known:
            hint = suggest(name, sorted(known))
            raise ApiError(400, f"there is no field {name!r:.80}{hint}", code="unknown_parameter", param=param)
