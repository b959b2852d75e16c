"""``sis list``"""

from __future__ import annotations

import click

from sis_core.cli.common import human_bytes, json_line, registry_of, table
from sis_hub.inventory import inventory


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the models that are on this machine, and their licences. Asks nobody."""
    found = inventory(registry_of(ctx).records("sources"))
    if as_json:
        rows = [{"name": m.name, "bytes": m.n_bytes, "licence": m.licence, "path": str(m.path)} for m in found]
        json_line({"models": rows})
        return
    if not found:
        click.echo("no models here: `sis pull qwen3-0.6b` fetches one", err=True)
        return
    table(["model", "size", "licence"], [(m.name, human_bytes(m.n_bytes), m.licence or "not stated") for m in found])
    click.echo(f"{len(found)} models, {human_bytes(sum(m.n_bytes for m in found))}", err=True)
