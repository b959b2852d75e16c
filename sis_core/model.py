"""A model: one file, its network, and the backend bound to it. Immutable and thread-safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sis_core.architecture import Architecture, ModelConfig, build_network
from sis_core.backend import Backend, BackendOptions, bind, usable, why_idle
from sis_core.block import Network
from sis_core.errors import BackendError, FormatError, ModelError, SisError, TokenizerError
from sis_core.fitting import Fit, fit
from sis_core.gate import Gate
from sis_core.gguf_file import GGUFFile, TensorInfo
from sis_core.memory import MIB, MemoryPlan, available_memory
from sis_core.quant import QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Batch, Cache, Forward, Output
from sis_core.tensors import Tensors
from sis_core.tokenizer import Tokenizer

log = logging.getLogger(__name__)
M = TypeVar("M", bound="Model")


class Model:
    """A network read from a file and bound to a backend.

    Attributes:
        path: the file.
        config: sizes and parameters.
        network: the records that backends read.
        forward: the bound network.
        fit: how weights are kept and what memory that takes; its options are `options`.
        backend: the name the user asked for, or that of the best backend used.
        degraded: placeholders and other guesses made while loading; 0 unless ``on_error="degrade"``.
    """

    def __init__(
        self,
        file: GGUFFile,
        registry: Registry,
        config: ModelConfig,
        network: Network,
        *,
        backends: list[Backend],
        asked: BackendOptions,
        fit: Fit,
        shared: _SharedFile,
        degraded: int = 0,
        memory_limit: int | None = None,
    ) -> None:
        self.file, self.registry, self.config, self.network = file, registry, config, network
        self.options, self.fit, self.degraded, self.memory_limit = fit.options, fit, degraded, memory_limit
        self.path: Path = file.path
        self._asked, self._shared = asked, shared
        self._gate = Gate(str(file.path))
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self.backends = backends
        self.backend = self.backends[0].name
        self.forward: Forward = bind(network, self.backends, self.options)
        shared.add()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Every key of the file."""
        return self.file.metadata

    @property
    def grains(self) -> tuple[str, ...]:
        """Who runs each layer."""
        return self._grains if self.closed else self.forward.grains

    @property
    def tokenizer(self) -> Tokenizer:
        """Built when first asked for; TokenizerError or PluginError when the file's vocabulary cannot be used."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = build_tokenizer(self.file, self.registry)
            return self._tokenizer

    def new_cache(self, max_tokens: int) -> Cache:
        """An empty cache for ``max_tokens`` tokens; MemoryLimitError with the sum when it cannot fit."""
        with self._gate:
            size = self.forward.cache_nbytes(self.options.kv_type, max_tokens)
            limit = min(_limit(self.memory_limit), available_memory())
            MemoryPlan(0, 0, size, 0).check(limit, f"a cache of {max_tokens} tokens")
            return self.forward.new_cache(self.options.kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        """Run one step; ClosedError after `close`."""
        with self._gate:
            return self.forward.step(batch, cache)

    def with_backend(self, backend: str) -> Self:
        """A second model over the same file with another backend; each is closed on its own."""
        with self._gate:
            backends, where = choose_backends(self.registry, backend), str(self.path)
            fitting = fit(self.config, self.network, None, self._asked, backends, _limit(self.memory_limit), where)
            fitting.tell(where)
            other = type(self)(
                self.file, self.registry, self.config, self.network,
                backends=backends, asked=self._asked, fit=fitting, shared=self._shared, degraded=self.degraded,
                memory_limit=self.memory_limit,
            )  # fmt: skip
            other._tokenizer = self._tokenizer
            return other

    @property
    def closed(self) -> bool:
        return self._gate.closed

    def close(self) -> None:
        """Wait for running steps, then free what the backend holds and unmap the file. Closing twice is no error."""
        if self._gate.close():
            self._grains = self.forward.grains
            del self.forward
            self._shared.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name} {self.config.architecture} on {self.backend}>"


class _SharedFile:
    """A file that several models read; the last one to close closes it."""

    def __init__(self, file: GGUFFile) -> None:
        self._file, self._users, self._lock = file, 0, threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._users += 1

    def drop(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._file.close()


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
) -> M:
    """Open a file as a model of class ``kind``.

    Args:
        backend: the name of one backend, or None for the best that works here.
        n_ctx: tokens of context; by default what the model was trained for, or less if memory is short.
        memory_limit: bytes that may be used, by default what is free now.

    Raises:
        SisError: the file, its model or the machine does not allow it; the message says which and why.
    """
    options = options or BackendOptions()
    file = GGUFFile.open(path)
    try:
        weights = file_weights(file, registry)
        name = file.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise ModelError(
                "the key general.architecture is missing or not a string",
                where=str(path),
                fix="convert the model again from its original",
            )
        family: Architecture = registry.get("architectures", name, where=str(path))

        def build(n_ctx: int | None) -> tuple[ModelConfig, Network, Tensors]:
            return build_network(
                family, file.metadata, weights, name=name, where=str(path), n_ctx=n_ctx, degrade=degrade
            )

        config, network, tensors = build(n_ctx)
        if config.n_ctx > config.n_ctx_train:
            log.warning("%s: trained for %d tokens, asked for %d", path, config.n_ctx_train, config.n_ctx)
        backends = choose_backends(registry, backend)
        fitting = fit(config, network, n_ctx, options, backends, _limit(memory_limit), str(path))
        if fitting.n_ctx != config.n_ctx:
            log.warning(
                "%s: context cut from %d to %d tokens to fit %d MiB of memory",
                path, config.n_ctx, fitting.n_ctx, fitting.limit // MIB,
            )  # fmt: skip
            config, network, tensors = build(fitting.n_ctx)  # a family may choose its frequencies by the context
        fitting.tell(str(path))
        return kind(
            file, registry, config, network,
            backends=backends, asked=options, fit=fitting, shared=_SharedFile(file), degraded=tensors.degraded,
            memory_limit=memory_limit,
        )  # fmt: skip
    except BaseException:
        file.close()
        raise


def _limit(memory_limit: int | None) -> int:
    return available_memory() if memory_limit is None else memory_limit


def file_weights(file: GGUFFile, registry: Registry) -> dict[str, Weight]:
    """Every tensor of a file as a weight.

    Raises:
        FormatError: a type without a codec (with tensor, type and package), or a tensor whose bytes are not what its
            format takes for its shape.
    """
    return {name: file_weight(file, registry, info) for name, info in file.tensors.items()}


def file_weight(file: GGUFFile, registry: Registry, info: TensorInfo) -> Weight:
    """One tensor of a file as a weight; raises what `file_weights` does."""
    where = f"{file.path}: tensor {info.name}"
    format = _format(info, registry, where)
    weight = Weight(
        info.name, format, info.shape, _reader(file, info.name), info.shape, release=_releaser(file, info.name)
    )
    # The reader knows the sizes of GGUF's own types only; a type it does not know may end in padding.
    wrong = weight.nbytes > info.n_bytes if info.type_id is not None else weight.nbytes != info.n_bytes
    if wrong:
        raise FormatError(
            f"has {info.n_bytes} bytes, but {info.shape} in {format.name} takes {weight.nbytes}",
            where=where,
            fix="the file was written by another version of the format: quantise it again",
        )
    return weight


def _format(info: TensorInfo, registry: Registry, where: str) -> QuantFormat:
    """The codec of a tensor: by its number, which is what the file says, else by the name of a foreign format."""
    found: QuantFormat | None = None
    if info.type_id is not None:
        found = registry.find("quant_formats", f"type {info.type_id}")
    found = found or registry.find("quant_formats", info.type_name)
    if found is not None:
        return found
    if info.package:
        raise FormatError(
            f"its format {info.type_name!r} is not installed",
            where=where,
            fix=f"the file says that the package {info.package!r} brings it; install that if you trust it, or name a "
            "plugin's file with --plugin",
        )
    if info.type_id is None:
        raise FormatError(
            f"its format {info.type_name!r} is not installed, and the file names no package that brings it",
            where=where,
            fix="name the plugin's file with --plugin",
        )
    if info.type_name == f"type {info.type_id}":
        raise FormatError(
            f"no installed plugin knows its {info.type_name}, and it is none of GGUF's own",
            where=where,
            fix="install the plugin that wrote the file, or name a plugin's file with --plugin",
        )
    try:
        registry.get("quant_formats", info.type_name)
    except SisError as error:
        raise FormatError(error.what, where=where, fix=error.fix) from None
    raise AssertionError("unreachable: a format cannot appear between two look-ups")


def _reader(file: GGUFFile, name: str) -> Any:
    return lambda: file.raw(name)


def _releaser(file: GGUFFile, name: str) -> Any:
    return lambda: file.release(name)


def choose_backends(registry: Registry, name: str | None) -> list[Backend]:
    """The backends to ask, in order. A named one is asked alone (the numpy reference fills what it leaves)."""
    if name is None:
        chosen = usable(registry.records("backends"))
        if not chosen:
            raise BackendError("no backend works on this machine", where="--backend")
        return chosen
    backend: Backend = registry.get("backends", name, where="--backend")
    if reason := why_idle(backend):
        raise BackendError(f"cannot work here: {reason}", where=f"backend {name}", fix="choose another with --backend")
    return [backend]


def build_tokenizer(file: GGUFFile, registry: Registry) -> Tokenizer:
    """The tokenizer that a file describes."""
    name = file.metadata.get("tokenizer.ggml.model")
    if not isinstance(name, str):
        raise TokenizerError(
            "the key tokenizer.ggml.model is missing",
            where=str(file.path),
            fix="the file holds no vocabulary: work with token ids in a session",
        )
    factory = registry.get("tokenizers", name, where=str(file.path))
    try:
        tokenizer: Tokenizer = factory.build(file.metadata)
    except SisError as error:
        where = f"{file.path}: {error.where}" if error.where else str(file.path)
        raise type(error)(error.what, where=where, fix=error.fix) from error
    return tokenizer
