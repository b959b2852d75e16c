"""A model: one file, its network, and the backend bound to it. Immutable and thread-safe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sis_core.architecture import ModelConfig
from sis_core.backend import Backend, BackendOptions, Cache, Forward
from sis_core.backends.bind import bind
from sis_core.block import Network
from sis_core.closing import Closing
from sis_core.gguf_file import GGUFFile
from sis_core.loading.checks import check_option
from sis_core.loading.choice import choose_backends
from sis_core.loading.fingerprint import fingerprint
from sis_core.loading.fitting import Fit, fit
from sis_core.loading.gate import Gate
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.machine.lock import Lock
from sis_core.machine.memory import MemoryPlan, available_memory, memory_limit_or_free
from sis_core.registry import Registry
from sis_core.step import Batch, Output
from sis_core.tokenizer import Tokenizer


class Model(Closing):
    """A network read from a file and bound to a backend.

    Attributes:
        path: the file.
        config: sizes and parameters.
        network: the records that backends read: of all layers.
        layers: those that are bound, and whose weights are read. Where they begin after the first, steps take hidden
            states; where they end before the last, steps give them.
        forward: the bound network.
        grains: who runs each layer.
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
        shared: SharedFile,
        layers: range,
        degraded: int = 0,
        memory_limit: int | None = None,
        here: bool = True,
    ) -> None:
        self.file, self.registry, self.config, self.network = file, registry, config, network
        self.options, self.fit, self.degraded, self.memory_limit = fit.options, fit, degraded, memory_limit
        self.path: Path = file.path
        self.layers = layers
        self._asked, self._shared, self._here = asked, shared, here
        self._gate = Gate(str(file.path), self._free)
        self._lock = Lock()
        self._tokenizer: Tokenizer | None = None
        self.backends = backends
        self.forward: Forward = bind(network, self.backends, self.options, layers)
        self.backend = self.backends[0].name
        self.grains = self.forward.grains
        shared.add()

    @cached_property
    def fingerprint(self) -> str:
        """Which model it is: a digest of its files, not of every byte; see `sis_core.loading.fingerprint`."""
        return fingerprint(self.file.paths)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Every key of the file."""
        return self.file.metadata

    @property
    def tokenizer(self) -> Tokenizer:
        """Built when first asked for; TokenizerError or PluginError when the file's vocabulary cannot be used."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = build_tokenizer(self.file, self.registry)
            return self._tokenizer

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the LoRA adapters that sequences may run through; no backend computes any yet."""
        return frozenset()

    def new_cache(self, max_tokens: int) -> Cache:
        """An empty cache for ``max_tokens`` tokens; MemoryLimitError with the sum when it cannot fit."""
        with self._gate:
            if self._here:
                self.check_room(max_tokens)
            return self.forward.new_cache(self.options.kv_type, max_tokens)

    def check_room(self, max_tokens: int) -> None:
        """MemoryLimitError with the sum where a cache for so many tokens cannot fit into this machine's memory."""
        size = self.forward.cache_nbytes(self.options.kv_type, max_tokens)
        MemoryPlan(0, 0, size, 0).check(self.free_nbytes(), f"a cache of {max_tokens} tokens")

    def free_nbytes(self) -> int:
        """Bytes of this machine's memory that caches may take now."""
        return min(memory_limit_or_free(self.memory_limit), available_memory())

    def step(self, batch: Batch, cache: Cache) -> Output:
        """Run one step; ClosedError after `close`."""
        with self._gate:
            return self.forward.step(batch, cache)

    def with_backend(self, backend: str) -> Self:
        """A second model over the same file with another backend; each is closed on its own."""
        check_option("backend", backend, kind=str)
        with self._gate:
            backends, where = choose_backends(self.registry, backend), str(self.path)
            limit = memory_limit_or_free(self.memory_limit)
            fitting = fit(self.config, self.network, None, self._asked, backends, limit, where, self.layers)
            fitting.tell(where)
            other = type(self)(
                self.file, self.registry, self.config, self.network,
                backends=backends, asked=self._asked, fit=fitting, shared=self._shared, layers=self.layers,
                degraded=self.degraded,
                memory_limit=self.memory_limit,
            )  # fmt: skip
            other._tokenizer = self._tokenizer
            return other

    @property
    def closed(self) -> bool:
        return self._gate.closed

    def close(self) -> None:
        """Wait for running steps, then free what the backend holds and unmap the file. Closing twice is no error.

        A signal handler may call it in the middle of a step; that step then frees them when it ends.
        """
        self._gate.close()

    def _free(self) -> None:
        del self.forward
        self._shared.drop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name} {self.config.architecture} on {self.backend}>"


class SharedFile:
    """A file that several models read; the last one to close closes it."""

    def __init__(self, file: GGUFFile) -> None:
        self._file, self._users, self._lock = file, 0, Lock()

    def add(self) -> None:
        with self._lock:
            self._users += 1

    def drop(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._file.close()
