"""The options of samplers, on every command that draws tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sis_core.cli.common import registry_of
from sis_core.cli.completion import completing, names_of
from sis_core.texts.chain_text import sampler_options

F = TypeVar("F", bound=Callable[..., Any])


class SamplingCommand(click.Command):
    """A command whose options include those of every installed sampler; see `sampling_options` for the others."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        fixed = super().get_params(ctx)
        taken = {option for param in fixed for option in param.opts}
        return fixed[:-1] + [o for o in _sampler_params(ctx) if not taken & set(o.opts)] + fixed[-1:]


def sampling_options(function: F) -> F:
    """Add the options that choose samplers, and the seed."""
    for option in (
        click.option("--seed", type=click.IntRange(0), help="Same seed, same text."),
        click.option("--samplers", metavar="CHAIN",
                     help='A whole chain in order: "penalties;top-k=40;top-p=0.95;temperature=0.8".'),
        click.option("--sampler", metavar="NAME", shell_complete=completing(names_of("samplers")),
                     help="One sampler, with the options below; see `sis samplers`."),
    ):  # fmt: skip
        function = option(function)
    return function


def _sampler_params(ctx: click.Context) -> list[click.Parameter]:
    params: list[click.Parameter] = []
    for spelling, name, sampler, field in sampler_options(registry_of(ctx)):
        shown = f"; default {field.default}" if isinstance(field.default, str | int | float | bool) else ""
        text = f"{sampler.name}: {field.metadata.get('help', field.name)}{shown}"
        kind = {int: click.INT, float: click.FLOAT, bool: click.BOOL}.get(field.type or str, click.STRING)
        params.append(click.Option([spelling, name], type=kind, default=None, help=text))
    return params
