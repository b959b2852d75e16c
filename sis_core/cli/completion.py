"""Values that a shell offers while a command is being typed: names of installed parts, and models that are here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completing(names: Callable[[Any], Iterable[str]], *, files: bool = False) -> Completion:
    """For click's ``shell_complete``: the names that ``names(registry)`` gives and, with ``files``, paths.

    Whatever goes wrong offers nothing: a shell shows no errors.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from sis_core.cli.common import registry_of

        found: list[CompletionItem] = []
        with contextlib.suppress(Exception):
            wanted = incomplete.lower()
            found = [CompletionItem(name) for name in names(registry_of(ctx)) if name.lower().startswith(wanted)]
        return [*found, CompletionItem(incomplete, type="file")] if files and not found else found

    return complete


def model_names(registry: Any) -> list[str]:
    """Models on this machine, by the names that their sources know them by."""
    return [listing.name for source in registry.records("sources") for listing in source.list()]


def format_names(registry: Any) -> list[str]:
    """What `sis quantize --to` takes: formats that can be written, and mixes."""
    from sis_core.workbench.quantizer.recipes import RECIPES

    formats = [format.name for format in registry.records("quant_formats") if format.can_quantize]
    return sorted({name.lower() for name in [*formats, *RECIPES]})


def names_of(kind: str) -> Callable[[Any], list[str]]:
    """Names of one kind of part, such as ``samplers``."""
    return lambda registry: list(registry.names(kind))
