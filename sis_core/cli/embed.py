"""``sis embed``"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from sis_core.cli.common import json_line, load_model, model_options, read_input
from sis_core.cli.naming import check_text
from sis_core.cli.outputs import check_output
from sis_core.cli.sections import SectionedCommand
from sis_core.errors import SourceError
from sis_core.texts.embedding import Pooling


@click.command("embed", cls=SectionedCommand)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@model_options()
@click.option("--pooling", type=click.Choice(get_args(Pooling)),
              help="How a text's states become one vector (default: as the file says, else their mean).")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write them to this file as a NumPy array, a row for each text.")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, /, texts: tuple[str, ...], pooling: str | None, output: Path | None, **options: Any
) -> None:
    """Turn each TEXT into a vector of length 1, printed as a JSON array on a line.

    Without TEXT each line of standard input is one.
    """
    for text in texts:
        check_text(text, "sis embed")
    check_output(output)
    listed = list(texts) or read_input().splitlines()
    if not listed or "" in listed:
        raise SourceError("a text is empty, or there is none", where="sis embed", fix="give one text a line")
    with load_model(ctx, options) as model:
        vectors = model.embed(listed, pooling=pooling)
    if output is None:
        for vector in vectors:
            json_line(vector.tolist())
    else:
        with output.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
