"""``sis new``"""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from sis_core.cli.common import registry_of
from sis_core.errors import PluginError
from sis_core.workbench.scaffold import KINDS, Names, write_plugin

REGISTERED = {  # kind: the records whose name it takes, and how that name is spelt
    "quant": ("quant_formats", "constant"),
    "sampler": ("samplers", "project"),
    "drafter": ("drafters", "project"),
    "backend": ("backends", "project"),
    "architecture": ("architectures", "project"),
    "tokenizer": ("tokenizers", "project"),
    "source": ("sources", "project"),
    "chat-format": ("chat_formats", "project"),
    "command": ("commands", "project"),
}


@click.command("new")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), metavar="DIR", help="The folder to write (default: ./NAME).")
@click.pass_context
def command(ctx: click.Context, kind: str, name: str, into: Path | None) -> None:
    """Write a plugin called NAME: a package with its test, ready to install and to change."""
    names = Names.of(name)
    _refuse_taken(ctx, kind, names)
    folder = into or Path(names.project)
    for path in write_plugin(kind, names, folder):
        click.echo(f"wrote {path}")
    place = quote(str(folder))
    click.echo("\nNow install it and run its test (in a clone of sis: with `uv pip` and `uv run`):\n")
    click.echo(f"  pip install -e {place} pytest\n  python -m pytest {place}")


def _refuse_taken(ctx: click.Context, kind: str, names: Names) -> None:
    records, spelling = REGISTERED[kind]
    wanted = getattr(names, spelling)
    registry = registry_of(ctx)
    if wanted in registry.names(records):
        owner = registry.owner(records, registry.find(records, wanted))
        raise PluginError(
            f"there is a {kind} {wanted!r} already, in the plugin {owner!r}",
            where="sis new",
            fix=f"choose another name, such as my-{names.project}",
        )
