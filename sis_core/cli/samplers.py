"""``sis samplers``"""

from __future__ import annotations

from typing import Any

import attrs
import click

from sis_core.cli.common import json_line, registry_of, table
from sis_core.cli.completion import completing, names_of
from sis_core.texts.chain_text import sampler_options


@click.command("samplers")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing(names_of("samplers")))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """List samplers and their options, in the order in which a chain runs them; with NAMEs what their options do."""
    registry = registry_of(ctx)
    wanted = [registry.get("samplers", name, where="sis samplers") for name in names]
    options: dict[type, dict[str, object]] = {}
    rules = []
    for option in sampler_options(registry):
        options.setdefault(option.sampler, {})[option.option] = _default(option.field)
        if option.sampler in wanted:
            about = option.field.metadata.get("help", "")
            rules.append([option.sampler.name, option.option, _default(option.field), about])
    entries = sorted(registry.entries("samplers"), key=lambda entry: (entry.record.order, entry.record.name))
    entries = [entry for entry in entries if not wanted or entry.record in wanted]
    rows = []
    for entry in entries:
        own = options.get(entry.record, {})
        summary = (entry.record.__doc__ or "").strip().partition("\n")[0]
        if as_json:
            json_line({"name": entry.record.name, "plugin": entry.plugin, "options": own, "about": summary})
        else:
            shown = " ".join(f"{name}={default}" for name, default in own.items())
            rows.append([entry.record.name, entry.plugin, shown, summary])
    if as_json:
        return
    table(["sampler", "plugin", "options", "what it does"], rows)
    if rules:
        click.echo()
        table(["sampler", "option", "default", "what it says"], rules)


def _default(field: attrs.Attribute[Any]) -> object:
    """The default as JSON can show it."""
    value = field.default
    if isinstance(value, str | int | float | bool | None):
        return value
    factory = getattr(value, "factory", None)  # an attrs.Factory, which is a function to the type checker
    return str(factory() if factory else value)
