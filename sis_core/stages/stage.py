"""One stage: some layers of a model, and what they remember of texts, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve, frozen

from sis_core.arrays import F32
from sis_core.backend import Cache
from sis_core.errors import LostError
from sis_core.loading.alike import identity
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.loading.recipe import Recipe
from sis_core.step import Batch

Edit = tuple[str, tuple[Any, ...]]
"""A method of `Cache` that changes it, and its arguments."""


@frozen
class Order:
    """What stages are told of a cache with each step.

    Attributes:
        cache: its key.
        kv_type: of a cache that is new.
        max_tokens: the same.
        new: whether it is.
        edits: what happened to it since the step before, in order.
    """

    cache: str
    kv_type: str
    max_tokens: int
    new: bool
    edits: tuple[Edit, ...]


@frozen
class About:
    """What a stage says of itself.

    Attributes:
        identity: see `sis_core.loading.alike.identity`.
        grains: see `Model.grains`.
        batch_invariant: see `Forward.batch_invariant`.
        memory: what it takes, and how it keeps its weights.
    """

    identity: dict[str, str]
    grains: tuple[str, ...]
    batch_invariant: bool
    memory: str


class Stage:
    """Reads and binds ``layers`` alone. Used by one call at a time."""

    def __init__(self, recipe: Recipe, n_ctx: int, layers: range) -> None:
        options = recipe.options
        self._model = open_model(
            Model, recipe.path, recipe.registry(), backend=options.backend, n_ctx=n_ctx,
            options=options.for_backends(None), degrade=options.on_error == "degrade",
            memory_limit=options.memory_limit, ignored=options.ignore_keys, layers=layers,
        )  # fmt: skip
        self._last = layers.stop == self._model.network.n_layer
        self._caches: dict[str, Cache] = {}

    def about(self) -> About:
        model = self._model
        return About(identity(model), model.grains, model.forward.batch_invariant, "; ".join(model.fit.lines()))

    def check_room(self, max_tokens: int) -> None:
        """See `Model.check_room`."""
        self._model.check_room(max_tokens)

    def free_nbytes(self) -> int:
        """See `Model.free_nbytes`."""
        return self._model.free_nbytes()

    def step(self, order: Order, batch: Batch, hidden: F32 | None) -> F32:
        """The results of a batch from the last stage; from any other the hidden states of all its rows.

        ``hidden``: those of the stage before. LostError for a cache that this process never had.
        """
        cache = self._cache(order)
        if hidden is not None:
            batch = evolve(batch, hidden=hidden)
        if not self._last:
            batch = evolve(batch, outputs=range(batch.n), want="hidden")
        return self._model.step(batch, cache).values

    def save(self, order: Order, sequence: int) -> list[bytes]:
        """See `Cache.save`."""
        return list(self._cache(order).save(sequence))

    def load(self, order: Order, sequence: int, data: Iterable[bytes]) -> None:
        """See `Cache.load`."""
        self._cache(order).load(sequence, data)

    def drop(self, cache: str) -> None:
        """Forget a cache; an unknown one is no error."""
        self._caches.pop(cache, None)

    def close(self) -> None:
        self._caches.clear()
        self._model.close()

    def _cache(self, order: Order) -> Cache:
        """The cache of an order, brought to what the order says."""
        if order.new:
            self._caches[order.cache] = self._model.forward.new_cache(order.kv_type, order.max_tokens)
        cache = self._caches.get(order.cache)
        if cache is None:
            raise LostError("was started again, and holds no texts", where="stage")
        for name, arguments in order.edits:
            method: Any = getattr(cache, name)
            method(*arguments)
        return cache
