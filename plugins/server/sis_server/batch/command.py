"""``sis batch``"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sis_core.cli.common import load_model, model_options, recipe_of, registry_of
from sis_core.cli.progress import progress_bar
from sis_core.cli.streams import say

if TYPE_CHECKING:
    from sis_server.batch.lines import Line

log = logging.getLogger(__name__)
Run = Callable[["Iterator[Line]", Callable[[bytes], None]], None]
"""Answers lines, and tells each answer in its turn."""


@click.command("batch")
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("answers", type=click.Path(dir_okay=False, path_type=Path))
@model_options()
@click.option("--template", metavar="NAME|FILE", help="How chats are written, where the file does not say.")
@click.option("--at-once", type=click.IntRange(1, 1024), default=32, show_default=True,
              help="Requests on their way at the same time, on each machine.")  # fmt: skip
@click.option("--cache", "cache_tokens", type=click.IntRange(1), metavar="TOKENS",
              help="What all together may keep (default: what a quarter of the free memory holds).")  # fmt: skip
@click.option("--ray", "address", is_flag=False, flag_value="", metavar="[ADDRESS]",
              help="Spread requests over the machines of a Ray cluster (default: of RAY_ADDRESS).")  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context,
    /,
    requests: Path,
    answers: Path,
    template: str | None,
    at_once: int,
    cache_tokens: int | None,
    address: str | None,
    **options: Any,
) -> None:
    """Answer every line of REQUESTS, as OpenAI's batches have them, in ANSWERS, in the same order.

    Killed or interrupted, the same command goes on where it was. The same requests give the same bytes on machines of
    the same instruction set, however they were interrupted and on however many: ids follow from the line, so does a
    seed that it lacks, and results do not depend on what else runs. The model of -m answers, whichever a line names.

    Exits with 0 when each request has its answer or was refused for what it asks (both are counted at the end), with 1
    when it was stopped or some failed here (500 and above): the same command goes on, and tries these again.
    """
    from sis_server.batch.lines import check_lines, read_lines
    from sis_server.batch.output import Output

    if address is not None and options["stages"] != 1:
        raise click.UsageError("--ray gives each machine the whole model, and --stages a part: give one of them")
    total = check_lines(requests)
    options["batch_invariant"] = True
    settings: dict[str, Any] = {"template": template, "cache_tokens": cache_tokens, "at_once": at_once}
    with ExitStack() as held:
        output = held.enter_context(Output(answers))
        if options["n_ctx"] is None:  # its default depends on the free memory
            options["n_ctx"] = output.n_ctx
        if address is None:
            heading, run = _here(ctx, options, held, **settings)
        else:
            heading, run = _on_machines(ctx, options, held, address, total, **settings)
        output.begin(heading)
        counts = output.check(lines := read_lines(requests))
        if output.n_done:
            say(f"sis: {output.n_done} of {total} requests were answered before")
        if again := counts.again:
            say(f"sis: {len(again)} of them failed here, and are tried again")
            places = set(again)
            with output.mending(again) as write:
                run((line for place, line in enumerate(read_lines(requests)) if place in places), write)
            counts = output.check(lines := read_lines(requests))
        update = held.enter_context(progress_bar())

        def told(answer: bytes) -> None:
            output.write(answer)
            counts.add(answer)
            update("answering", output.n_done, total)

        run(lines, told)
    say(f"sis: {counts}")
    if counts.again:
        say(f"sis: {len(counts.again)} failed here: the same command tries them again")
        ctx.exit(1)


def _here(
    ctx: click.Context, options: dict[str, Any], held: ExitStack, *, at_once: int, **settings: Any
) -> tuple[dict[str, str], Run]:
    """What answers of this machine depend on, and the way it answers lines."""
    from sis_core.stages.backend import n_stages
    from sis_server.batch.application import application
    from sis_server.batch.heading import heading
    from sis_server.batch.run import answers

    model = held.enter_context(load_model(ctx, options))
    app = held.enter_context(application(model, at_once=at_once, n_engines=n_stages(model), **settings))
    return heading(model, **settings), lambda lines, told: asyncio.run(answers(app, lines, at_once=at_once, told=told))


def _on_machines(
    ctx: click.Context, options: dict[str, Any], held: ExitStack, address: str, total: int, *, at_once: int,
    **settings: Any,
) -> tuple[dict[str, str], Run]:  # fmt: skip
    """The same for the machines of a cluster, once all of them have loaded the same."""
    from sis_server.alike import start_alike
    from sis_server.batch.shards import run_shards
    from sis_server.batch.worker import Worker

    recipe, cluster = recipe_of(ctx, options), registry_of(ctx).get("clusters", "ray", where="--ray")
    machines = held.enter_context(cluster.join(address))
    asked = (recipe, settings["template"], settings["cache_tokens"], at_once)
    workers, identity = start_alike(machines, len(machines.names), Worker, *asked)
    log.info("answering on %s", ", ".join(worker.where for worker in workers))
    size = max(1, min(4 * at_once, -(-total // (2 * len(workers)))))  # at least two for each machine
    heading = workers[0].call("heading").result()
    return heading, lambda lines, told: run_shards(workers, identity, lines, size=size, told=told)
