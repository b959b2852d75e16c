"""``sis rm``"""

from __future__ import annotations

import click

from sis_core.cli.common import registry_of
from sis_core.cli.completion import completing, model_names
from sis_hub.inventory import remove


@click.command("rm")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=completing(model_names))
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...]) -> None:
    """Remove each MODEL, by a name as `sis list` shows it. Bytes that another model shares stay."""
    sources = registry_of(ctx).records("sources")
    for model in models:
        remove(model, sources)
        click.echo(f"removed {model}")
