"""The options of samplers, on every command that draws tokens."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sis_core.cli.common import registry_of
from sis_core.cli.completion import completing, names_of
from sis_core.cli.sections import SectionedCommand, SectionOption
from sis_core.texts.chain_text import sampler_options

F = TypeVar("F", bound=Callable[..., Any])
CHOOSING = "Choosing tokens"


class SamplingCommand(SectionedCommand):
    """A command whose options include those of every installed sampler; see `sampling_options` for the others.

    The help lists these by name alone: `sis samplers` says more.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        fixed = super().get_params(ctx)
        key = f"{__name__}.{self.name}"  # asked for several times, by click and for the defaults in a file
        if key not in ctx.meta:
            taken = {option for param in fixed for option in param.opts}
            ctx.meta[key] = [o for o in _sampler_params(ctx) if not taken & set(o.opts)]
        found: list[click.Parameter] = ctx.meta[key]
        return fixed[:-1] + found + fixed[-1:]

    def shows(self, param: click.Parameter) -> bool:
        return super().shows(param) and not isinstance(param, _SamplerOption)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        names = [param.opts[0] for param in self.get_params(ctx) if isinstance(param, _SamplerOption)]
        with formatter.section("Options of samplers, see `sis samplers`"):
            indent = " " * formatter.current_indent
            lines = textwrap.fill(
                " ".join(names),
                formatter.width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
            formatter.write(lines + "\n")


class _SamplerOption(click.Option):
    """An option of a sampler."""


def sampling_options(function: F) -> F:
    """Add the options that choose samplers, and the seed."""
    for option in (
        click.option("--seed", type=click.IntRange(0), metavar="N", help="Same seed, same text."),
        click.option("--samplers", metavar="CHAIN", cls=SectionOption, section=CHOOSING,
                     help='A whole chain in order: "penalties;top-k=40;top-p=0.95;temperature=0.8".'),
        click.option("--sampler", metavar="NAME", cls=SectionOption, section=CHOOSING,
                     shell_complete=completing(names_of("samplers")),
                     help="One sampler, with its options."),
    ):  # fmt: skip
        function = option(function)
    return function


def _sampler_params(ctx: click.Context) -> list[click.Parameter]:
    params: list[click.Parameter] = []
    for spelling, name, sampler, field in sampler_options(registry_of(ctx)):
        shown = f"; default {field.default}" if isinstance(field.default, str | int | float | bool) else ""
        text = f"{sampler.name}: {field.metadata.get('help', field.name)}{shown}"
        kind = {int: click.INT, float: click.FLOAT, bool: click.BOOL}.get(field.type or str, click.STRING)
        if kind is click.BOOL:
            spelling += f"/--no-{spelling.removeprefix('--')}"
        params.append(_SamplerOption([spelling, name], type=kind, default=None, help=text))
    return params
