"""``sis pull``"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from sis_core.cli.common import human_bytes, registry_of
from sis_core.cli.progress import progress_bar
from sis_core.errors import SourceError
from sis_core.source import Progress, Source, resolve


@runtime_checkable
class Pulling(Protocol):
    """A source that can look for something newer than what is here."""

    def pull(self, reference: str, progress: Progress | None = None) -> Path | None:
        """As `Source.resolve`, but asking whoever publishes the model."""


@click.command("pull")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...]) -> None:
    """Download each MODEL: hf://user/repo:Q4_K_M, an address, or a name from the zoo.

    What is here already stays, unless it has changed where it came from. Killed or interrupted, the same command goes
    on where it was.
    """
    sources = registry_of(ctx).records("sources")
    for model in models:
        with progress_bar() as update:
            path = pull(model, sources, partial(update, "downloading"))
        click.echo(f"{model}: {human_bytes(path.stat().st_size)} at {path}")


def pull(model: str, sources: Sequence[Source], progress: Progress | None = None) -> Path:
    """The model's file, looked for where it is published."""
    for source in sources:
        if isinstance(source, Pulling) and (path := source.pull(model, progress)) is not None:
            return path
    path = resolve(model, sources, progress)
    if not path.exists():
        raise SourceError(
            "no installed source knows this model", where=model, fix="write hf://user/repo, or an address"
        )
    return path
