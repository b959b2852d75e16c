"""``sis verify``"""

from __future__ import annotations

from functools import partial

import click

from sis_core.cli.common import registry_of
from sis_core.cli.completion import completing, model_names
from sis_core.cli.progress import progress_bar
from sis_core.errors import SourceError
from sis_hub.inventory import find, inventory
from sis_hub.verify import verify


@click.command("verify")
@click.argument("models", metavar="[MODEL...]", nargs=-1, shell_complete=completing(model_names))
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...]) -> None:
    """Compare each MODEL (default: all) with the hash that its listing or package states.

    Exit code 1 when one is damaged.
    """
    known = inventory(registry_of(ctx).records("sources"))
    damaged = 0
    for listing in [find(model, known) for model in models] or known:
        try:
            with progress_bar() as update:
                certain = verify(listing, partial(update, listing.name))
        except SourceError as error:
            damaged += 1
            click.echo(f"DAMAGED {error}")
        else:
            click.echo(f"{'ok' if certain else 'unknown, nobody stated its hash'}: {listing.name}")
    if damaged:
        raise SourceError(f"{damaged} damaged", where="sis verify", fix="fetch them again, as the lines above say")
