"""Long helps in sections: what is common first, then what belongs together."""

from __future__ import annotations

from typing import Any

import click

COMMON, LOADING = "Options", "Loading the model"


class SectionOption(click.Option):
    """An option that `SectionedCommand` shows under a heading."""

    def __init__(self, *args: Any, section: str = COMMON, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help has the options without a section first, and those of loading last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {COMMON: []}
        for param in self.get_params(ctx):
            if self.shows(param) and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "section", COMMON), []).append(record)
        for heading in sorted(sections, key=lambda heading: heading == LOADING):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])

    def shows(self, param: click.Parameter) -> bool:
        """Whether a parameter has lines of its own."""
        return isinstance(param, click.Option)
