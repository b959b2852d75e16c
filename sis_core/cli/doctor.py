"""``sis doctor``"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from itertools import groupby
from typing import Any

import click
import numpy as np

from sis_core.backend import Backend, Handling
from sis_core.backends.bind import knows, usable, why_idle
from sis_core.backends.native import NativeBackend
from sis_core.backends.numpy import NumpyBackend
from sis_core.block import find_weights
from sis_core.cli.common import human_bytes, load_model, model_options, registry_of, table
from sis_core.cli.sections import SectionedCommand
from sis_core.errors import ChatError, ModelError
from sis_core.loading.choice import missing_kernels
from sis_core.machine.cores import describe_cores
from sis_core.machine.memory import available_memory
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.stages.backend import memory_lines
from sis_core.texts.context import describe
from sis_core.texts.language_model import LanguageModel
from sis_core.workbench.parameters import Parameters
from sis_core.workbench.scan import check_tensors

PROBE = "Once upon a time"


@click.command("doctor", cls=SectionedCommand)
@model_options(bare=True)
@click.option("--check-tensors", is_flag=True, help="Read every weight of the model and look for NaN and infinity.")
@click.pass_context
def command(ctx: click.Context, /, check_tensors: bool, **options: Any) -> None:
    """Check this machine, the plugins and, with -m, a model. Exit code 1 when something is broken."""
    registry = registry_of(ctx, keep_broken=True)
    registry.load_all()
    _machine()
    broken = _plugins(registry)
    _backends(registry)
    if options["model"]:  # to load it says what is missing
        with load_model(ctx, options) as model:
            _model(model, scan=check_tensors)
    elif (chosen := usable(registry.records("backends"))) and (missing := missing_kernels(registry, chosen)):
        click.echo(missing)
    if broken:
        ctx.exit(1)


def _machine() -> None:
    click.echo(f"sis {metadata.version('sis-core')}, Python {platform.python_version()}, numpy {np.__version__}")
    free = human_bytes(available_memory())
    click.echo(f"{platform.system()} {platform.machine()}, {describe_cores()}, {free} of memory free")


def _plugins(registry: Registry) -> int:
    broken = [plugin for plugin in registry.plugins if plugin.error]
    click.echo(f"{len(registry.plugins) - len(broken)} plugins work, {len(broken)} do not")
    for plugin in broken:
        click.echo(f"  {plugin.name}: {plugin.error}")
    return len(broken)


def _backends(registry: Registry) -> None:
    click.echo()
    rows = []
    for backend in registry.records("backends"):
        reason = why_idle(backend)
        state = "only when named" if backend.score <= 0 and not reason else "ready" if not reason else f"idle: {reason}"
        rows.append([backend.name, backend.score, state, "" if reason else backend.describe()])
    table(["backend", "score", "state", "about"], rows)


def _known(backend: Backend, model: LanguageModel) -> str:
    """How much of a model a backend would bind, at the best of the three grains."""
    network, options = model.network, model.options
    if knows(backend, network, options):
        return "the whole model"
    layers = sum(knows(backend, block, options) for block in network.blocks)
    if layers:
        return f"{layers} of {network.n_layer} layers"
    weights = [weight for weight in network.weights() if len(weight.shape) == 2]
    return f"{sum(knows(backend, weight, options) for weight in weights)} of {len(weights)} matrices"


def _expected(model: LanguageModel) -> None:
    """What a token reads, and how many a second memory allows."""
    parameters = Parameters.of(model.file.tensors, model.file.metadata)
    sizes = [(weight.nbytes, _handled(weight, model)[1].nbytes or weight.nbytes) for weight in _matrices(model)]
    packed = sum(taken for _, taken in sizes) / max(1, sum(size for size, _ in sizes))
    n_bytes = int(parameters.active_nbytes * packed)  # as weights lie in memory, not in the file
    click.echo(f"{parameters}; a token reads {human_bytes(n_bytes)} of weights")
    for backend in model.backends:
        if isinstance(backend, NativeBackend) and not why_idle(backend):
            if any(_handled(weight, model)[0] == NumpyBackend.name for weight in _matrices(model)):
                click.echo("Python decodes some of them in each step: far fewer tokens/s than memory allows")
                return
            speed = backend.read_bandwidth(model.options.n_threads)
            most = speed / max(n_bytes, 1)
            click.echo(f"memory is read at {speed / 1e9:.1f} GB/s: at most {most:,.1f} tokens/s of one text")
            return


def _matrices(model: LanguageModel) -> list[Weight]:
    """Those that a step multiplies by."""
    network = model.network
    return [w for w in [*find_weights(network.blocks), *network.head.dense.reads()] if len(w.shape) > 1]


def _handled(weight: Weight, model: LanguageModel) -> tuple[str, Handling]:
    """The backend that runs a matrix, and how."""
    found = ((backend.name, backend.handling(weight, model.options)) for backend in model.backends)
    return next(((name, made) for name, made in found if made), ("?", Handling("it does not say", 0)))


def _formats(model: LanguageModel) -> None:
    """How the matrices of each format run, and what a step then reads in place of what is in the file."""
    matrices = _matrices(model)
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for weight in matrices:
        name, handling = _handled(weight, model)
        rows.setdefault((weight.format.name, f"{handling.way} ({name})"), []).append((weight.nbytes, handling.nbytes))
    table(
        ["format", "matrices", "in the file", "how they run", "takes then"],
        [
            [
                format,
                len(sizes),
                human_bytes(sum(file for file, _ in sizes)),
                way,
                human_bytes(sum(n for _, n in sizes)),
            ]
            for (format, way), sizes in rows.items()
        ],
    )


def _chat(model: LanguageModel) -> str:
    """How chats are written and replies are read, or why they are not."""
    try:
        return model.chat_format().describe()
    except ChatError as error:
        return str(error)


def _tell_step(model: LanguageModel, tokens: Sequence[int]) -> bool:
    """Say what one step gives; whether that is numbers."""
    try:
        best = int(model.logits(tokens)[-1].argmax())
    except ModelError as error:
        click.echo(f"one step: {error.what}: the file is damaged, or a format decodes it wrongly")
        return False
    click.echo(f"one step: finite logits; the likeliest next token is {model.tokenizer.token_text(best)!r}")
    return True


def _model(model: LanguageModel, *, scan: bool) -> None:
    config = model.config
    click.echo()
    sizes = f"{config.n_layer} layers, n_embd {config.n_embd}, n_vocab {config.n_vocab}"
    click.echo(f"{model.path.name}: {config.architecture}, {sizes}")
    types = Counter(info.type_name for info in model.file.tensors.values())
    click.echo("types: " + ", ".join(f"{name} ×{n}" for name, n in types.most_common()))
    click.echo(
        f"context: {config.n_ctx} of the {config.n_ctx_train} tokens it was trained for; {describe(model.context)}"
    )
    first, *more = memory_lines(model)
    click.echo(f"memory: {first}")
    for line in more:
        click.echo(line)
    _expected(model)
    _formats(model)
    for grain, layers in groupby(enumerate(model.grains), key=lambda pair: pair[1]):
        numbers = [i for i, _ in layers]
        click.echo(f"layers {numbers[0]} to {numbers[-1]}: {grain}")
    for backend in model.backends:
        if backend.name != NumpyBackend.name:  # the reference takes what is left
            click.echo(f"{backend.name} knows {_known(backend, model)}")
    tokens = model.tokenize(PROBE)
    back = model.detokenize(tokens)
    click.echo(f"tokenizer: {PROBE!r} is {len(tokens)} tokens and comes back as {back!r}")
    click.echo(f"chat: {_chat(model)}")
    is_finite = _tell_step(model, tokens)
    if scan:
        check_tensors(model)
        click.echo("tensors: every weight is finite")
    elif not is_finite:
        click.echo("`--check-tensors` looks for a weight that is to blame")
    if not is_finite:
        sys.exit(1)
