"""``llm sis``"""

from __future__ import annotations

import click

from llm_sis import added


@click.group()
def sis() -> None:
    """Models of sis by names of your own."""


@sis.command("add")
@click.argument("name")
@click.argument("model")
def add(name: str, model: str) -> None:
    """Call MODEL, a GGUF file or whatever else `sis -m` takes, sis/NAME."""
    added.write({**added.read(), name: model})


@sis.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget NAME; no file is deleted."""
    models = added.read()
    if models.pop(name, None) is None:
        raise click.ClickException(f"no model was added as {name!r}")
    added.write(models)


@sis.command("list")
def list_() -> None:
    """Show what was added."""
    for name, model in added.read().items():
        click.echo(f"sis/{name}\t{model}")
