"""``sis serve``"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from sis_core.cli.common import load_model, model_options, registry_of
from sis_core.cli.sections import SectionedCommand


@click.command("serve", cls=SectionedCommand)
@model_options(bare=True)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen; any that is not this machine alone asks for a key.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--api-key", "keys", multiple=True, envvar="SIS_API_KEY", metavar="KEY",
              help="Ask for a key; several may be given (or SIS_API_KEY).")  # fmt: skip
@click.option("--api-key-file", type=click.Path(exists=True, dir_okay=False), help="Keys, one a line.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME",
              help="What requests call the model (default: the file's name).")  # fmt: skip
@click.option("--models", "others", multiple=True, metavar="FOLDER|[NAME=]MODEL",
              help="Models that are opened when a request names them; may be given several times.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(0), default=10.0, show_default=True, metavar="MINUTES",
              help="When such a model is closed that nobody uses; 0: never.")  # fmt: skip
@click.option("--template", metavar="NAME|FILE", help="How chats are written, where the file does not say.")
@click.option("--cache", "cache_tokens", type=click.IntRange(1), metavar="TOKENS",
              help="What all texts together may keep (default: what a quarter of the free memory holds).")  # fmt: skip
@click.option("--max-stall", type=click.IntRange(1), default=80, show_default=True, metavar="MS",
              help="How long texts wait for the prompts of others in one step.")  # fmt: skip
@click.option("--queue", "queue_limit", type=click.IntRange(1), default=64, show_default=True,
              help="Requests that may wait; more get 503.")  # fmt: skip
@click.option("--max-body", type=click.IntRange(1), default=8, show_default=True, metavar="MIB", help="Of a request.")
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="SECONDS",
              help="For the headers of a request, and for its body.")  # fmt: skip
@click.option("--grace", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS",
              help="At the end: how long replies may still go on.")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Another name that this server has.")
@click.option("--allow-origin", "origins", multiple=True, metavar="ORIGIN",
              help="Pages of another server that may ask: https://example.org.")  # fmt: skip
@click.option("--ray", "n_replicas", type=click.IntRange(1), metavar="N",
              help="Spread requests over N replicas on the machines of a Ray cluster (of RAY_ADDRESS).")  # fmt: skip
@click.option(
    "--log-json", is_flag=True, help="Log as JSON lines: all that -v tells, and where each request's time went."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    host: str,
    port: int,
    keys: tuple[str, ...],
    api_key_file: str | None,
    aliases: tuple[str, ...],
    others: tuple[str, ...],
    idle: float,
    template: str | None,
    cache_tokens: int | None,
    max_stall: int,
    queue_limit: int,
    max_body: int,
    timeout: float,
    grace: float,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    n_replicas: int | None,
    log_json: bool,
    **options: Any,
) -> None:
    """Serve a model over HTTP: the APIs of OpenAI and of Anthropic, and a page to talk to it.

    It listens on this machine alone; elsewhere it asks for a key. With --models and without -m, nothing is opened
    before it is asked for.
    """
    from sis_core.stages.backend import n_stages
    from sis_server import json_log
    from sis_server.app import make_app
    from sis_server.catalogue import Catalogue
    from sis_server.guard import LOOPBACK, Rules
    from sis_server.metrics import Metrics
    from sis_server.models import Models
    from sis_server.receiving import Limits
    from sis_server.replicas.replica import Serving
    from sis_server.replicas.serve import serve_replicas
    from sis_server.room import cache_tokens_for
    from sis_server.running import listen, run
    from sis_server.served import Served

    if log_json:
        json_log.log_json()
    if api_key_file is not None:
        keys += tuple(line.strip() for line in Path(api_key_file).read_text("utf-8-sig").splitlines() if line.strip())
    if not all(key.isascii() and key.isprintable() and key.strip() == key != "" for key in keys):
        raise click.UsageError("an API key is empty, or holds what no HTTP header can")
    local = host in ("localhost", "::1") or host.startswith("127.")
    if not local and not keys:
        raise click.UsageError(f"who listens on {host} asks for a key: --api-key KEY")
    rules = Rules(keys, LOOPBACK | set(hosts) | {host} if local or hosts else frozenset(), frozenset(origins))
    limits, metrics = Limits(max_body << 20, timeout), Metrics()

    if n_replicas is not None:
        if others:
            raise click.UsageError("--ray serves the model of -m alone, not those of --models")
        if options["stages"] != 1:
            raise click.UsageError("--ray gives each machine the whole model, and --stages a part: give one of them")
        serving = Serving(
            aliases, template, cache_tokens, max_stall / 1000, queue_limit, Rules(keys, frozenset(), rules.origins),
            limits, grace,
        )  # fmt: skip
        with listen(host, port) as socket:
            serve_replicas(ctx, options, n_replicas, rules, serving, socket)
        return

    def opened(reference: str | None, names: tuple[str, ...]) -> Served:
        model = load_model(ctx, {**options, "model": reference})
        try:
            served = Served(
                model,
                names or (model.path.stem if reference is None or os.path.exists(reference) else reference,),
                template=template,
                cache_tokens=cache_tokens or cache_tokens_for(model),
                stall=max_stall / 1000,
                queue_limit=queue_limit,
                metrics=metrics,
                n_engines=n_stages(model),
            )
            served.engine.start()
        except BaseException:
            model.close()
            raise
        return served

    catalogue = Catalogue.of(others)
    catalogue.check(registry_of(ctx).records("sources"))
    models = Models(catalogue, lambda name, reference: opened(reference, (name,)), idle=idle * 60 or None)
    with listen(host, port) as socket, contextlib.closing(models):
        name = options["model"]
        if name is not None or not others:
            models.pin(opened(name, aliases))
        elif aliases:
            raise click.UsageError("--alias names the model of -m; others are named by --models NAME=MODEL")
        run(models, make_app(models, metrics, rules, limits), socket, limits, grace)
