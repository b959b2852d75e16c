"""``sis profile``"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import click

from sis_core.cli.common import json_line, registry_of, table
from sis_core.cli.measuring import open_for, run_options, take
from sis_core.cli.naming import model_named
from sis_core.cli.options import load_options
from sis_core.cli.outputs import check_output
from sis_core.cli.progress import progress_bar
from sis_core.errors import ContextError, SourceError
from sis_core.texts.feeding import SessionStats
from sis_core.workbench.profiling import NAME, Profile, profile_text, profiling, summarise, trace_events
from sis_core.workbench.profiling.summary import Row

PROMPT = "Once upon a time"
SECTIONS = {
    "part": "parts",
    "layer": "layers",
    "plugin": "plugins",
    "matrix": "linears",
}


@click.command("profile")
@model_named(bare=True)
@click.option("--prompt", default=PROMPT, show_default=True, help="The text to continue.")
@click.option("-n", "--max-tokens", "n_tokens", type=click.IntRange(2), default=32, show_default=True,
              help="Tokens to generate.")  # fmt: skip
@click.option("--samplers", metavar="CHAIN", help="A sampler chain, as for `sis generate`; default: the default one.")
@click.option("--trace", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write a trace that ui.perfetto.dev opens.")  # fmt: skip
@click.option("--whole", is_flag=True, help="Leave a backend that runs the whole model in one call as it is.")
@run_options
@load_options(("speculate",))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    prompt: str,
    n_tokens: int,
    samplers: str | None,
    trace: Path | None,
    whole: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Where the time of a token goes: by part, layer, plugin and matrix.

    The parts are timed by wrapping what backends bind, in this command only. A backend that runs the whole model in
    one call is asked for its layers instead; with --whole it shows as one part.
    """
    chosen = take(options, "profile")
    check_output(trace)
    registry, recorder = profiling(registry_of(ctx), chosen["backend"], whole=whole)
    chosen["backend"] = NAME
    with open_for(ctx, model, chosen, None, registry) as opened:
        with progress_bar() as update:
            profile_text(opened, recorder, prompt, n_tokens=n_tokens, samplers=samplers, progress=update)
        if recorder.token < 2:
            raise ContextError(
                f"the context of {opened.config.n_ctx} tokens has no room after the prompt",
                where="--prompt",
                fix="give a shorter prompt",
            )
        found = summarise(recorder.spans)
        if trace:
            _write(trace, json.dumps(trace_events(recorder.spans, f"sis {opened.path.name}")))
        if as_json:
            about: dict[str, Any] = {"model": str(opened.path), "grains": list(opened.grains), "note": recorder.note}
            about |= {name: getattr(recorder.stats, name) for name in ("steps", "rows", "rows_ahead", "rows_wasted")}
            about["guessed"] = {drafter: attrs.asdict(guessed) for drafter, guessed in recorder.stats.guessed.items()}
            json_line({**about, **attrs.asdict(found)})
            return
        _print(found, recorder.note, recorder.stats)
        if trace:
            click.echo(f"\n{trace}: {len(recorder.spans)} spans; open it at https://ui.perfetto.dev")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise SourceError(f"cannot be written: {error}", where=str(path), fix="name another file") from None


def _print(found: Profile, note: str, stats: SessionStats) -> None:
    click.echo(
        f"{found.ms:.3f} ms a token ({1e3 / found.ms:.1f} tokens/s while watched), median {found.median_ms:.3f} ms, "
        f"over {found.n_tokens} tokens; prompt {found.prompt_ms:.1f} ms"
    )
    if stats.rows_ahead:
        click.echo(
            f"{stats.rows_ahead} rows fed ahead in {stats.steps} steps, {stats.rows_wasted} of them wasted: "
            "their tokens were not chosen"
        )
    for drafter, guessed in stats.guessed.items():
        click.echo(f"guessed by {drafter}: {guessed.fed} tokens, {guessed.chosen} of them right")
    if note:
        click.echo(note)
    for title, name in SECTIONS.items():
        rows: tuple[Row, ...] = getattr(found, name)
        if rows:
            click.echo()
            _section(title, rows)


def _section(title: str, rows: tuple[Row, ...]) -> None:
    headers = [title, "plugin", "ms/token", "share", "calls"]
    cells = [(row.name, row.owner, f"{row.ms:.4f}", f"{100 * row.share:.1f} %", f"{row.calls:g}") for row in rows]
    if title == "plugin":
        headers, cells = [headers[0], *headers[2:]], [(c[0], *c[2:]) for c in cells]  # type: ignore[misc]
    if not sys.stdout.isatty():
        table(headers, cells)
        return
    from rich.bar import Bar
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(*headers, "", box=SIMPLE_HEAD, pad_edge=False)
    longest = max(row.ms for row in rows) or 1.0
    for row, texts in zip(rows, cells, strict=True):
        drawn.add_row(*map(escape, texts), Bar(longest, 0, max(row.ms, 0), width=24))
    Console().print(drawn)
