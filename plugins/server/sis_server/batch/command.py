"""``sis batch``"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import click

from sis_core.cli.common import load_model, model_options
from sis_core.cli.progress import progress_bar
from sis_core.cli.streams import say


@click.command("batch")
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("answers", type=click.Path(dir_okay=False, path_type=Path))
@model_options()
@click.option("--template", metavar="NAME|FILE", help="How chats are written, where the file does not say.")
@click.option("--at-once", type=click.IntRange(1, 1024), default=32, show_default=True,
              help="Requests on their way at the same time.")  # fmt: skip
@click.option("--cache", "cache_tokens", type=click.IntRange(1), metavar="TOKENS",
              help="What all together may keep (default: what a quarter of the free memory holds).")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context,
    /,
    requests: Path,
    answers: Path,
    template: str | None,
    at_once: int,
    cache_tokens: int | None,
    **options: Any,
) -> None:
    """Answer every line of REQUESTS, as OpenAI's batches have them, in ANSWERS, in the same order.

    Killed or interrupted, the same command goes on where it was. The same requests give the same bytes on machines of
    the same instruction set, however they were interrupted: ids follow from the line, so does a seed that it lacks, and
    results do not depend on what else runs. The model of -m answers, whichever a line names.
    """
    from sis_server.app import make_app
    from sis_server.batch.lines import check_lines, read_lines
    from sis_server.batch.output import Output
    from sis_server.batch.run import run
    from sis_server.guard import Rules
    from sis_server.metrics import Metrics
    from sis_server.models import Models
    from sis_server.receiving import Limits
    from sis_server.room import cache_tokens_for
    from sis_server.served import Served

    total = check_lines(requests)
    options["batch_invariant"] = True
    model = load_model(ctx, options)
    heading = {"model": model.fingerprint, "instructions": model.backends[0].instructions, "backend": model.backend}
    with model, Output(answers, heading) as output:
        lines = read_lines(requests)
        output.check(lines)
        if output.n_done:
            say(f"sis: {output.n_done} of {total} requests were answered before")
        metrics, cache = Metrics(), cache_tokens or cache_tokens_for(model)
        served = Served(
            model, (model.path.stem,), template=template, cache_tokens=cache, stall=None, queue_limit=2 * at_once,
            metrics=metrics,
        )  # fmt: skip
        served.engine.start()
        try:
            models = Models()
            models.pin(served)
            app = make_app(models, metrics, Rules(), Limits())
            with progress_bar() as update:
                told = partial(update, "answering")
                asyncio.run(run(app, lines, output, at_once=at_once, told=told, total=total))
        finally:
            served.engine.close()
