"""Opening a file as a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve

from sis_core.architecture import Architecture, ModelConfig
from sis_core.backend import Backend, BackendOptions
from sis_core.block import Network
from sis_core.errors import ModelError, blaming
from sis_core.gguf_file import GGUFFile
from sis_core.loading.cache_type import cache_type
from sis_core.loading.choice import choose_backends
from sis_core.loading.fitting import fit
from sis_core.loading.model import Model, SharedFile
from sis_core.loading.network import build_network
from sis_core.loading.weights import file_weights
from sis_core.machine.collector import no_collection
from sis_core.machine.memory import MIB, memory_limit_or_free
from sis_core.quant import Weight
from sis_core.registry import Registry
from sis_core.tensors import Tensors

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Model)
Elsewhere = Callable[[ModelConfig, Network, int | None, BackendOptions], tuple[Backend, int | None] | None]
"""What may bind a network in other processes: is told the tokens of context that were asked for, and answers with a
backend and those that there is room for. None: it is to be bound here."""


@no_collection()
def open_model(
    kind: type[M],
    path: Path,
    registry: Registry,
    *,
    backend: str | None = None,
    n_ctx: int | None = None,
    options: BackendOptions | None = None,
    degrade: bool = False,
    memory_limit: int | None = None,
    ignored: Collection[str] = (),
    layers: range | None = None,
    elsewhere: Elsewhere | None = None,
) -> M:
    """Open a file as a model of class ``kind``.

    Args:
        backend: the name of one backend, or None for the best that works here.
        n_ctx: tokens of context; by default what the model was trained for, or less if memory is short.
        memory_limit: bytes that may be used, by default what is free now.
        ignored: keys of the file to pass over where nobody reads them.
        layers: the layers to bind, by default all; see `Model`.
        elsewhere: asked first who binds them; where somebody does, they count for nothing in this process.

    Raises:
        SisError: the file, its model or the machine does not allow it; the message says which and why.
    """
    options = options or BackendOptions()
    file = GGUFFile.open(path)
    try:
        build = partial(network_of, file, file_weights(file, registry), registry, degrade=degrade, ignored=ignored)
        config, network, tensors = build(n_ctx)
        layers = _chosen(layers, network, str(path))
        if config.n_ctx > config.n_ctx_train:
            log.warning("%s: trained for %d tokens, asked for %d", path, config.n_ctx_train, config.n_ctx)
        options = evolve(options, kv_type=cache_type(network, options.kv_type, str(path)))
        found = None if elsewhere is None else elsewhere(config, network, n_ctx, options)
        if found is None:
            backends, counted = choose_backends(registry, backend), layers
        else:
            backends, n_ctx, counted = [found[0]], found[1], range(0)
        fitting = fit(config, network, n_ctx, options, backends, memory_limit_or_free(memory_limit), str(path), counted)
        if fitting.n_ctx != config.n_ctx:
            log.warning(
                "%s: context cut from %d to %d tokens to fit %d MiB of memory",
                path, config.n_ctx, fitting.n_ctx, fitting.limit // MIB,
            )  # fmt: skip
            config, network, tensors = build(fitting.n_ctx)  # a family may choose its frequencies by the context
        fitting.tell(str(path))
        if towers := tensors.towers():
            log.warning("%s: %d tensors that see or hear are left out: it runs on text alone", path, len(towers))
        return kind(
            file, registry, config, network,
            backends=backends, asked=options, fit=fitting, shared=SharedFile(file), layers=layers,
            degraded=tensors.degraded,
            memory_limit=memory_limit, here=found is None,
        )  # fmt: skip
    except BaseException:
        file.close()
        raise


def network_of(
    file: GGUFFile,
    weights: Mapping[str, Weight],
    registry: Registry,
    n_ctx: int | None = None,
    *,
    degrade: bool = False,
    ignored: Collection[str] = (),
) -> tuple[ModelConfig, Network, Tensors]:
    """What the family of a file makes of it, without reading a weight; SisError for what cannot be run."""
    where = str(file.path)
    _check_kind(file)
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelError(
            "the key general.architecture is missing or not a string",
            where=where,
            fix="convert the model again from its original",
        )
    family: Architecture[Any] = registry.get("architectures", name, where=where)
    with blaming(ModelError, f"the family {name} of the plugin {registry.owner('architectures', family)}", where):
        return build_network(
            family, file.metadata, weights, name=name, where=where, n_ctx=n_ctx, degrade=degrade, ignored=ignored
        )


def _chosen(layers: range | None, network: Network, where: str) -> range:
    """The layers asked for; ModelError unless the network has them."""
    whole = range(network.n_layer)
    if layers is None:
        return whole
    if not layers or layers.step != 1 or layers[0] not in whole or layers[-1] not in whole:
        raise ModelError(
            f"it has layers 0 to {whole[-1]}, not {layers}", where=where, fix="ask for layers that follow one another"
        )
    return layers


OTHER_FILES = {
    "adapter": ("a LoRA adapter, a small change to another model", "give the model that it was made for"),
    "imatrix": ("an importance matrix", "give it to `sis quantize --imatrix`, and a model here"),
    "mmproj": ("the part of a model that sees or hears", "give the file with the language model beside it"),
    "vocab": ("a vocabulary without a model", "give a whole model"),
}
"""What ``general.type`` says of GGUF files that are no models, and what to do with one."""


def _check_kind(file: GGUFFile) -> None:
    """ModelError that says what a file is, where it is no model."""
    kind = file.metadata.get("general.type")
    if kind is None and file.metadata.get("general.architecture") == "clip":
        kind = "mmproj"
    if isinstance(kind, str) and kind in OTHER_FILES:
        what, fix = OTHER_FILES[kind]
        raise ModelError(f"this file is {what}, not a model", where=str(file.path), fix=fix)
