"""``sis plugins``"""

from __future__ import annotations

from typing import Any

import click

from sis_core.cli.common import json_line, registry_of, table
from sis_core.errors import PluginError


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List plugins, what they offer, and what is wrong with the broken ones.

    Exits with an error where some are broken, as `pip check` does.
    """
    registry = registry_of(ctx, keep_broken=True)
    registry.load_all()
    clashes = {kind: registry.clashes(kind) for kind in registry.kinds}
    rows: list[dict[str, Any]] = []
    for plugin in registry.plugins:
        problems = [plugin.error] if plugin.error else []
        for kind, names in clashes.items():
            for name, owners in names.items():
                if plugin.name in owners and registry.preferred(name) not in owners:
                    others = ", ".join(owner for owner in dict.fromkeys(owners) if owner != plugin.name) or "itself"
                    use = f"{name.removeprefix('type ')}={plugin.name}"
                    problems.append(f"{name} in {kind} is also claimed by {others}; use --prefer {use}")
        rows.append(
            {
                "name": plugin.name,
                "version": plugin.version,
                "package": plugin.origin,
                "offers": plugin.offers,
                "problem": "; ".join(problems) or None,
            }
        )
    if as_json:
        for row in rows:
            json_line(row)
    else:
        _print(rows)
    if broken := [plugin.name for plugin in registry.plugins if plugin.error]:
        raise PluginError(
            f"{', '.join(broken)} cannot be used",
            where="plugins",
            fix="the list says why: mend or uninstall what is broken, or leave it out with SIS_DISABLED_PLUGINS",
        )


def _print(rows: list[dict[str, Any]]) -> None:
    table(
        ["plugin", "version", "package", "offers", "problem"],
        [
            [
                row["name"],
                row["version"],
                row["package"],
                "; ".join(f"{kind}: {', '.join(names)}" for kind, names in row["offers"].items()),
                row["problem"] or "",
            ]
            for row in rows
        ],
    )
