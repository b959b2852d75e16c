"""How a model is loaded: each option once, for `load`, for every command, and for their help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import attrs
from attrs import frozen

from sis_core.backend import BackendOptions
from sis_core.loading.checks import check_option
from sis_core.source import Progress

F = TypeVar("F", bound=Callable[..., Any])
Policy = Literal["strict", "degrade"]
HALF = "f16"
AUTO: Literal["auto"] = "auto"


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    kind: type | None = None,
    least: int | None = None,
    choices: tuple[str, ...] | None = None,
    words: tuple[str, ...] = (),
    names: str | None = None,
) -> Any:
    """An attrs field that is an option; one whose default is None may be None. The rest is as for `check_option`.

    Args:
        flag: how the program spells it, such as ``-t/--threads`` or ``--pin/--no-pin``; None for Python alone.
        names: the kind of part whose names it takes, such as ``backends``.
    """

    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        rules: dict[str, Any] = {"kind": kind, "least": least, "choices": choices, "words": words}
        check_option(field.name, value, **rules, optional=default is None)

    about = {
        "help": help, "flag": flag, "metavar": metavar, "least": least, "choices": choices, "words": words,
        "names": names,
    }  # fmt: skip
    return attrs.field(default=default, validator=check, metadata=about)


@frozen
class LoadOptions:
    """What a user may say of how a model is loaded. `load` documents each field by its ``help``."""

    backend: str | None = option(
        None, "Use this backend instead of the best one.",
        flag="--backend", metavar="NAME", names="backends", kind=str,
    )  # fmt: skip
    n_ctx: int | None = option(
        None, "Tokens of context (default: what the model was trained for, or less where memory is short).",
        flag="--ctx", least=1,
    )  # fmt: skip
    kv_type: str = option(
        HALF, "How keys and values are kept: f32, f16, bf16, q8_0 or q4_0.", flag="--kv-type", kind=str
    )
    n_threads: int | None = option(
        None, "Threads for arithmetic (default: one for each core).", flag="-t/--threads", least=1
    )  # fmt: skip
    pack: bool | None = option(
        None,
        "Copy weights into the backend's layout at load, or read them in place (default: copy them when memory allows, "
        "while the first tokens come).",
        flag="--pack/--no-pack",
        kind=bool,
    )
    gradual: bool | None = option(
        None, "Pack in the first steps, or at load (default: at load only where --pack is given).",
        kind=bool,
    )  # fmt: skip
    pin: bool = option(False, "Keep each thread on a core of its own (Linux).", flag="--pin/--no-pin", kind=bool)
    batch_invariant: bool = option(
        False, "Same numbers whatever else shares a step; slower.", flag="--batch-invariant", kind=bool
    )  # fmt: skip
    on_error: Literal["strict", "degrade"] = option(
        "strict", "Stop at the first error, or go on as well as possible and say so.",
        flag="--on-error", choices=("strict", "degrade"),
    )  # fmt: skip
    speculate: str | None = option(
        None, "Guess tokens ahead, which never changes a text: auto, off, or a drafter, NAME:field=value (default: "
        "auto, where a drafter for it is installed).",
        flag="--speculate", metavar="NAME", names="drafters", kind=str,
    )  # fmt: skip
    stages: int | Literal["auto"] = option(
        1, "Machines of a cluster that share the layers; `sis-ray` reaches them. auto: as few as their memory allows.",
        flag="--stages", metavar="N|auto", kind=int, least=1, words=(AUTO,),
    )  # fmt: skip
    context: str = option(
        "error", "When the context is full: error (stop), shift (compute the newer half again), sinks:4 (keep the "
        "first tokens and a window of the newest). After a long prompt: an eviction (snapkv:2048 keeps 2048 tokens).",
        flag="--context", metavar="HOW", kind=str,
    )  # fmt: skip
    ignore_keys: tuple[str, ...] = option(
        (), "Go on although nothing implements what this key of the file asks for; the result is marked degraded.",
        flag="--ignore-key", metavar="KEY",
    )  # fmt: skip
    memory_limit: int | None = option(None, "Bytes that may be used (default: what is free).", least=0)

    def for_backends(self, progress: Progress | None) -> BackendOptions:
        """The part that backends are asked with."""
        names = {field.name for field in attrs.fields(BackendOptions)} - {"progress"}
        own = {name: value for name, value in attrs.asdict(self).items() if name in names}
        return BackendOptions(**own, progress=progress)


def documented(function: F) -> F:
    """Put each option's help into a function's docstring, where it says ``{options}``."""
    lines = [f"        {field.name}: {field.metadata['help']}" for field in attrs.fields(LoadOptions)]
    function.__doc__ = (function.__doc__ or "").replace("        {options}", "\n".join(lines))
    return function
