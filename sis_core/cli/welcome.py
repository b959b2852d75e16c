"""What ``sis`` alone says: the models that are here, and what to try."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import click

from sis_core.cli.common import human_bytes, registry_of
from sis_core.cli.streams import printable
from sis_core.discovery.guard import Guard
from sis_core.source import Listing, Source, each_once

SHOWN = 8


def welcome(ctx: click.Context, commands: set[str]) -> None:
    """Print it; ``commands`` are those that can be typed."""
    sources: list[Source] = registry_of(ctx).records("sources")
    found = each_once(_models(sources))
    click.echo(f"sis {version('sis-core')}: run language models from GGUF files\n")
    click.echo("Models that are here:" if found else "No models are here yet.")
    for listing in found[:SHOWN]:
        details = ", ".join(filter(None, (human_bytes(listing.n_bytes), printable(listing.licence))))
        click.echo(f"  {printable(listing.name)}  ({details})")
    if len(found) > SHOWN:
        click.echo(f"  and {len(found) - SHOWN} more: sis list")
    click.echo("\nTry:")
    for line in _tries(found, any(source.default for source in sources), commands):
        click.echo(f"  {line}")
    click.echo("\nsis --help lists all commands; sis COMMAND --help says more of one.")


def _models(sources: list[Source]) -> Iterator[Listing]:
    for source in sources:
        with Guard():  # a source that cannot say what it has has nothing
            yield from list(source.list())


def _tries(found: list[Listing], has_default: bool, commands: set[str]) -> Iterator[str]:
    named = "" if has_default or not found else f"-m {found[0].name} "
    if has_default or found:
        yield f'sis generate {named}"Once upon a time"'
        if "chat" in commands:
            yield f"sis chat {named}".rstrip()
        yield f"sis doctor {named}".rstrip()
    if "pull" in commands:
        yield "sis pull hf://USER/REPOSITORY"
    elif not found:
        yield "pip install sis-tiny sis-hub"
    if not (has_default or found):
        yield 'sis generate -m model.gguf "Once upon a time"'
