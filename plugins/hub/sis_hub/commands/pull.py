"""``sis pull``"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from sis_core.cli.common import human_bytes, registry_of
from sis_core.cli.completion import completing, format_names
from sis_core.cli.progress import progress_bar
from sis_core.errors import SourceError
from sis_core.registry import Registry
from sis_core.source import Progress, Source, resolve
from sis_hub.reference import without_secrets


@runtime_checkable
class Pulling(Protocol):
    """A source that can look for something newer than what is here."""

    def pull(self, reference: str, progress: Progress | None = None) -> Path | None:
        """As `Source.resolve`, but asking whoever publishes the model."""


@runtime_checkable
class Converting(Protocol):
    """A source that can make a GGUF file of something else."""

    def convert(
        self, reference: str, to: str, registry: Registry | None = None, progress: Progress | None = None
    ) -> Path | None:
        """As `Source.resolve`, with the matrices in the format or recipe ``to``."""


@click.command("pull")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--to", metavar="FORMAT", default="", shell_complete=completing(format_names),
    help="Convert safetensors to this format on the way: q4_0, q4_k_m …",
)  # fmt: skip
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...], to: str) -> None:
    """Download each MODEL: hf://user/repo:Q4_K_M, an address, or a name from the zoo.

    A repository or folder of safetensors is converted to GGUF. What is here already stays, unless it has changed where
    it came from. Killed or interrupted, the same command goes on where it was.
    """
    registry = registry_of(ctx)
    for model in models:
        with progress_bar() as update:
            doing = partial(update, "converting" if to else "downloading")
            path = convert(model, to, registry, doing) if to else pull(model, registry.records("sources"), doing)
        click.echo(f"{without_secrets(model)}: {human_bytes(path.stat().st_size)} at {path}")


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


def convert(model: str, to: str, registry: Registry, progress: Progress | None = None) -> Path:
    """The model's file, made of its safetensors."""
    for source in registry.records("sources"):
        if isinstance(source, Converting) and (path := source.convert(model, to, registry, progress)) is not None:
            return path
    raise SourceError(
        "--to is for models in safetensors, and this is none", where=model, fix=f"`sis quantize {model} OUT --to {to}`"
    )
