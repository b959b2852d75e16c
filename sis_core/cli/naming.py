"""How a command is told its model: by ``-m``, and where it takes nothing else, without."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sis_core.cli.completion import completing, model_names
from sis_core.errors import SourceError

F = TypeVar("F", bound=Callable[..., Any])
MAGIC = b"GGUF"


def model_named(*, required: bool = False, bare: bool = False, default: str = "the built-in model") -> Callable[[F], F]:
    """Add ``-m``; with ``bare`` the model may also stand alone. The command gets it as ``model``.

    Args:
        required: whether there must be one.
        default: what is used else, for the help.
    """
    about = "A GGUF file or a source's name" + ("." if required else f" (default: {default}).")

    def add(function: F) -> F:
        @functools.wraps(function)
        def named(*args: Any, model: str | None, bare_model: str | None = None, **rest: Any) -> Any:
            return function(*args, model=_one(model, bare_model, required), **rest)

        marked: Any = click.option("-m", "--model", metavar="FILE", envvar="SIS_MODEL", help=about,
                                   shell_complete=completing(model_names, files=True))(named)  # fmt: skip
        alone = click.argument("bare_model", required=False, metavar="[MODEL]",
                               shell_complete=completing(model_names, files=True))  # fmt: skip
        return alone(marked) if bare else marked  # type: ignore[no-any-return]

    return add


def _one(model: str | None, bare: str | None, required: bool) -> str | None:
    given = click.get_current_context().get_parameter_source("model") is ParameterSource.COMMANDLINE
    if model is not None and bare is not None and given:
        raise click.UsageError(f"two models are named, {model} and {bare}")
    found = model if bare is None else bare
    if found == "":
        raise SourceError("the model's name is empty", where="-m", fix="name a file, or leave -m out")
    if found is None and required:
        raise click.UsageError("name a model: -m model.gguf")
    return found


def check_text(text: str, command: str) -> None:
    """A UsageError for a text that is the path of a model: who forgets ``-m`` would talk to another one."""
    if text.endswith(".gguf") or _is_model(text):
        raise click.UsageError(f"{text} is a model, not a text: {command} -m {text} …")


def _is_model(text: str) -> bool:
    try:
        if not os.path.isfile(text):
            return False
        with open(text, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):  # a text too long for a path, or with a NUL
        return False
