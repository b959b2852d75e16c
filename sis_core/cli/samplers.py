"""``sis samplers``"""

from __future__ import annotations

from typing import Any

import attrs
import click

from sis_core.cli.common import json_line, registry_of, table


@click.command("samplers")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List samplers and their options, in the order in which a chain runs them."""
    registry = registry_of(ctx)
    entries = sorted(registry.entries("samplers"), key=lambda entry: (entry.record.order, entry.record.name))
    if as_json:
        for entry in entries:
            defaults = {field.name: _default(field) for field in attrs.fields(entry.record)}
            json_line({"name": entry.record.name, "plugin": entry.plugin, "options": defaults})
        return
    rows = []
    for entry in entries:
        summary = (entry.record.__doc__ or "").strip().partition("\n")[0]
        options = ", ".join(f"{field.name}={_default(field)}" for field in attrs.fields(entry.record))
        rows.append([entry.record.name, entry.plugin, options, summary])
    table(["sampler", "plugin", "options", "what it does"], rows)


def _default(field: attrs.Attribute[Any]) -> object:
    value = field.default
    if isinstance(value, str | int | float | bool | None):
        return value
    factory = getattr(value, "factory", None)  # an attrs.Factory, which is a function to the type checker
    return str(factory()) if factory else None
