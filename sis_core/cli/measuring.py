"""What the commands that measure have in common: their options, and the policy they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sis_core.cli.common import registry_of
from sis_core.cli.options import load_options, take_load_options
from sis_core.errors import BackendError
from sis_core.machine.cores import default_threads
from sis_core.registry import Registry
from sis_core.texts.language_model import LanguageModel, load

F = TypeVar("F", bound=Callable[..., Any])


def run_options(function: F) -> F:
    """Add the options that say how a model is run; `take` removes them again."""
    return load_options(("backend", "n_threads", "kv_type", "on_error"), on_error={"hidden": True})(function)


def take(options: dict[str, Any], command: str) -> dict[str, Any]:
    """The options of `run_options`, taken out; BackendError for a policy that would let guesses into the figures.

    Threads are a number, so that figures say how many, and BLAS is held to it too.
    """
    chosen = take_load_options(options)
    if chosen.pop("on_error") == "degrade":
        raise BackendError(
            "figures of a run that may guess are worth nothing",
            where=f"sis {command} --on-error degrade",
            fix="leave it out",
        )
    return chosen | {"n_threads": chosen["n_threads"] or default_threads()}


def open_for(
    ctx: click.Context, model: str | None, chosen: dict[str, Any], n_ctx: int | None, registry: Registry | None = None
) -> LanguageModel:
    """Load a model strictly, with the options that `take` gave, in the state in which it stays."""
    return load(model, registry=registry or registry_of(ctx), n_ctx=n_ctx, gradual=False, **chosen)
