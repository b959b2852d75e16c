"""`llm`'s options of a model: those of every installed sampler, and a few of a reply."""

from __future__ import annotations

from typing import Any

import llm
from pydantic import Field, create_model

from sis_core.registry import Registry
from sis_core.texts.chain_text import sampler_options

_PLAIN: dict[Any, Any] = {int: int, float: float, bool: bool, str | None: str}
_SCHEMAS = ("schema", "compact_json")  # `llm` has --schema of its own
OF_REPLY: dict[str, tuple[Any, str]] = {
    "max_tokens": (int, "Tokens of the reply at most"),
    "seed": (int, "The same seed gives the same reply"),
    "stop": (str, "End before this text"),
    "template": (str, "How chats are written, where the file does not say: a name or a file"),
}


def options_of(registry: Registry) -> type[llm.Options]:
    """A class with a field for each option; those that are not given are None."""
    fields: dict[str, Any] = {name: _field(kind, about) for name, (kind, about) in OF_REPLY.items()}
    for option in sampler_options(registry):
        kind = _PLAIN.get(option.field.type)
        if kind is not None and option.name not in _SCHEMAS:
            fields[option.name] = _field(kind, option.field.metadata.get("help", ""))
    made: type[llm.Options] = create_model("Options", __base__=llm.Options, **fields)
    return made


def _field(kind: Any, about: str) -> tuple[Any, Any]:
    return kind | None, Field(description=about, default=None)


def given(options: llm.Options) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.model_dump().items() if value is not None}
