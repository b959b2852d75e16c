"""What happens at the end of a context, and after a long prompt: what ``--context`` means."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from attrs import field, frozen

from sis_core.errors import SisError, suggest
from sis_core.eviction import Eviction
from sis_core.loading.checks import check_option
from sis_core.registry import Registry
from sis_core.texts.named import Naming
from sis_core.texts.retention import BestOfPrompt, Retention, SinksAndWindow

FIX = "give error, shift, sinks:N, or an eviction: NAME:N or NAME:field=value"
EVICTIONS = Naming("evictions", "eviction", SisError, FIX)


def _n_sinks(given: int) -> int:
    check_option("context", given, least=1)
    return given.__index__()


@frozen
class Sinks:
    """``sinks:4``: the first ``n`` tokens stay, and a window of the newest."""

    n: int = field(default=4, converter=_n_sinks)


Context: TypeAlias = Literal["error", "shift"] | Sinks | Eviction


def make_context(given: object, registry: Registry | None = None) -> Context:
    """What ``given`` asks for, a text or what one stands for: ``error``, ``shift``, ``sinks:4``, or an eviction by its
    name (``snapkv:2048``), which takes a registry.

    SisError for anything else.
    """
    match given:
        case "error" | "shift" | Sinks() | Eviction():
            return given
        case str():
            return _spelt(given, registry)
        case _:
            raise SisError(f"is {given!r:.60}, but must be a text", where="context", fix=FIX)


def _spelt(text: str, registry: Registry | None) -> Context:
    name, colon, value = text.strip().partition(":")
    if name == "sinks":
        if colon and not re.fullmatch(r"\d{1,9}", value, re.ASCII):
            raise SisError(f"sinks is {value!r:.60}, but must be a whole number", where="context", fix=FIX)
        return Sinks(int(value)) if colon else Sinks()
    known = registry.names("evictions") if registry else []
    if name not in known:
        hint = suggest(name, ["error", "shift", "sinks", *known])
        raise SisError(f"there is no way {text!r:.60} to go on{hint}", where="context", fix=FIX)
    assert registry
    shown = text if "=" in text else text.replace(":", "=", 1)  # snapkv:2048 sets the first field
    cls, values = EVICTIONS.item(registry, shown, "context")
    made = EVICTIONS.build(cls, values)
    assert isinstance(made, Eviction)
    return made


def describe(context: Context) -> str:
    """What happens at the end of a context, in a few words."""
    match context:
        case "shift":
            return "then the newer half is computed again"
        case Sinks(n):
            return f"then the first {n} and the newest stay in the cache, with their places"
        case Eviction():
            return f"of a longer prompt {context.keep} stay in the cache, by {context.name}"
        case _:
            return "then a text ends"


def retention_of(context: Context, n_ctx: int, n_prompt: int, most_tokens: int) -> Retention | None:
    """What a text that may come to ``most_tokens`` keeps; None for everything.

    ContextError where ``n_ctx`` is too small for it.
    """
    match context:
        case Sinks(n):
            return None if most_tokens <= n_ctx else SinksAndWindow(n, n_ctx)
        case Eviction():
            return BestOfPrompt(context, n_prompt) if n_prompt > context.keep else None
        case _:
            return None
