"""``sis imatrix``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sis_core.cli.common import json_line, read_text, registry_of
from sis_core.cli.measuring import open_for
from sis_core.cli.naming import model_named
from sis_core.cli.options import load_options
from sis_core.cli.outputs import check_output
from sis_core.cli.progress import progress_bar
from sis_core.workbench.quantizer.collect import NAME, counting, measure


@click.command("imatrix")
@model_named(required=True, bare=True)
@click.option("--text", "text_file", required=True, metavar="FILE", help="A text like those the model will meet.")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="A GGUF file.")
@click.option("--ctx", "n_ctx", type=click.IntRange(2), default=512, show_default=True, help="Tokens in a chunk.")
@click.option("--chunks", "n_chunks", type=click.IntRange(1), metavar="N", help="Only the first N chunks.")
@load_options(("n_threads",))
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    text_file: str,
    output: Path,
    n_ctx: int,
    n_chunks: int | None,
    n_threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure how much each input column of MODEL's weights matters, for `sis quantize --imatrix`.

    The file has the layout of llama.cpp's importance matrices.
    """
    check_output(output, force=force)
    text = read_text(text_file)
    registry, sums = counting(registry_of(ctx))
    chosen: dict[str, Any] = {"backend": NAME, "n_threads": n_threads, "kv_type": "f32"}
    with open_for(ctx, model, chosen, n_ctx, registry) as opened:
        tokens = opened.tokenize(text)[: n_chunks and n_chunks * n_ctx]
        with progress_bar() as update:
            found = measure(opened, sums, tokens, n_ctx=n_ctx, dataset=Path(text_file).name, progress=update)
    found.write(output)
    if as_json:
        json_line({"path": str(output), "tensors": len(found.sums), "chunks": found.n_chunks, "ctx": n_ctx})
    else:
        click.echo(f"{output}: {len(found.sums)} tensors, {found.n_chunks} chunks of {n_ctx} tokens")
