"""``sis compare-formats``"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from sis_core.cli.common import model_path, read_text, registry_of
from sis_core.cli.measuring import run_options, take
from sis_core.cli.naming import model_named
from sis_core.cli.outputs import check_output
from sis_core.cli.progress import progress_bar
from sis_core.cli.report import comma_separated, emit, markdown
from sis_core.errors import FormatError, SourceError
from sis_core.workbench.comparison import FormatRow, Settings, compare_formats, draw_plot, new_figure
from sis_core.workbench.quantizer.plan import find_format

COLUMNS = {  # heading: field
    "format": "format",
    "bits/weight": "bits",
    "MiB": "mib",
    "memory MiB": "memory_mib",
    "perplexity": "perplexity",
    "KL": "kl",
    "same top": "top1",
    "worst RMSE": "rmse",
    "prompt t/s": "pp",
    "t/s": "tg",
    "slowest": "tg_low",
    "fastest": "tg_high",
}
PLOTS, TABLES = (".png", ".svg", ".pdf"), (".md", ".csv", ".json")


@click.command("compare-formats")
@model_named(required=True, bare=True)
@click.option("--formats", required=True, metavar="A,B,…", help="Formats or mixes, as for `sis quantize --to`.")
@click.option("--text", "text_file", required=True, metavar="FILE", help="The text to score.")
@click.option("-o", "--output", "outputs", multiple=True, type=click.Path(dir_okay=False, path_type=Path),
              help="A table (.md, .csv, .json) or a plot (.png, .svg, .pdf); may be given several times.")  # fmt: skip
@click.option("--ctx", "n_ctx", type=click.IntRange(4), default=512, show_default=True, help="Tokens in a chunk.")
@click.option("--chunks", "n_chunks", type=click.IntRange(1), metavar="N", help="Only the first N chunks.")
@click.option("-r", "--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs for the speeds.")
@click.option("--pure", is_flag=True, help="The same format for every matrix, also for the head.")
@click.option("--fallback", "fallbacks", multiple=True, metavar="FORMAT", default=("F16",), show_default=True,
              help="For tensors whose rows do not divide.")  # fmt: skip
@click.option("--requantize", is_flag=True, help="Accept an original that is quantised already.")
@click.option("--folder", type=click.Path(file_okay=False, exists=True, path_type=Path),
              help="Where files are made for a while (default: the system's folder for such files).")  # fmt: skip
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    formats: str,
    text_file: str,
    outputs: tuple[Path, ...],
    n_ctx: int,
    n_chunks: int | None,
    repeat: int,
    pure: bool,
    fallbacks: tuple[str, ...],
    requantize: bool,
    folder: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantise MODEL in several formats and compare them: bits a weight, distance from the original, speed, memory."""
    chosen = take(options, "compare-formats")
    registry = registry_of(ctx)
    names = [name.strip() for name in formats.split(",") if name.strip()]
    if not names:
        raise FormatError("names no format", where="--formats", fix="write --formats q4_0,q8_0")
    _check_outputs(outputs)
    settings = Settings(
        n_ctx=n_ctx, n_chunks=n_chunks, repeat=repeat, run=chosen, pure=pure, requantize=requantize,
        fallbacks=tuple(find_format(registry, name, "--fallback") for name in fallbacks),
    )  # fmt: skip
    path, text = model_path(ctx, model), read_text(text_file)
    with tempfile.TemporaryDirectory(prefix="sis-", dir=folder) as work, progress_bar() as update:
        rows = list(
            compare_formats(
                path, names, text, Path(work), registry, settings, where=text_file, progress=update
            )
        )  # fmt: skip
    about = {"model": path.name, "text": Path(text_file).name, "ctx": n_ctx, "threads": chosen["n_threads"]}
    shown = [{heading: getattr(row, field) for heading, field in COLUMNS.items()} for row in rows]
    for output in outputs:
        _write(output, rows, shown, about)
    emit("json" if as_json else "table", list(COLUMNS), [attrs.asdict(r) for r in rows] if as_json else shown, about)


def _check_outputs(outputs: Sequence[Path]) -> None:
    """Refuse what could not be written in the end, before hours of work."""
    for output in outputs:
        if output.suffix not in (*PLOTS, *TABLES):
            raise SourceError(
                f"{output.suffix or 'a name without an ending'} is no kind of table or plot",
                where=str(output),
                fix=f"end it in one of {', '.join((*TABLES, *PLOTS))}",
            )
        check_output(output)
        if output.suffix in PLOTS:
            new_figure(output)


def _write(output: Path, rows: Sequence[FormatRow], shown: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    if output.suffix in PLOTS:
        draw_plot(rows, output, f"{about['model']} on {about['text']}")
        return
    if output.suffix == ".md":
        text = markdown(list(COLUMNS), shown)
    elif output.suffix == ".csv":
        text = comma_separated(list(COLUMNS), shown)
    else:
        text = json.dumps({**about, "rows": [attrs.asdict(row) for row in rows]}, indent=2) + "\n"
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise SourceError(f"cannot be written: {error}", where=str(output)) from None
