"""A backend that lets others bind each part, and wraps what they bind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import attrs
from attrs import define, evolve, frozen

from sis_core.arrays import F32, U8
from sis_core.backend import Backend, BackendOptions, Cache, Forward, Layer, LayerState, Linear
from sis_core.backends.bind import knows
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.block import Attention, Block, FeedForward, Network, Op, Residual
from sis_core.discovery.plugin import Plugin
from sis_core.experts import Experts
from sis_core.hookspecs import hookimpl
from sis_core.loading.choice import choose_backends
from sis_core.quant import QuantFormat, Weight
from sis_core.registry import Registry
from sis_core.step import Batch, Output, Plan
from sis_core.workbench.profiling.recorder import Recorder

NAME = "profile"
REFERENCE = "numpy"


class TimedFormat(QuantFormat):
    """A codec whose decoding is timed."""

    def __init__(self, format: QuantFormat, owner: str, recorder: Recorder) -> None:
        self._format, self._owner, self._recorder = format, owner, recorder
        for field in ("name", "type_id", "block_size", "type_size"):
            setattr(self, field, getattr(format, field))

    def row_bytes(self, n_cols: int) -> int:
        return self._format.row_bytes(n_cols)

    def dequantize(self, rows: U8, n_cols: int) -> F32:
        with self._recorder.span("decode", self._owner, self._format.name):
            return self._format.dequantize(rows, n_cols)


@frozen(eq=False)
class TimedLinear:
    """A linear that is timed."""

    linear: Linear
    owner: str
    name: str
    recorder: Recorder

    def __call__(self, x: F32) -> F32:
        with self.recorder.span("linear", self.owner, self.name):
            return self.linear(x)


@frozen(eq=False)
class Part:
    """A piece of a layer: what it is, who runs it, and whether it keeps the layer's state."""

    name: str
    owner: str
    layer: Layer
    stateful: bool


@frozen(eq=False)
class TimedLayer:
    """A layer in one or more parts, each timed."""

    index: int
    parts: tuple[Part, ...]
    recorder: Recorder

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> LayerState | None:
        stateful = next((part for part in self.parts if part.stateful), None)
        return stateful.layer.new_state(kv_type, n_pages, page_size) if stateful else None

    def __call__(self, hidden: F32, plan: Plan, state: Any) -> F32:
        self.recorder.layer = self.index
        try:
            for part in self.parts:
                with self.recorder.span(part.name, part.owner):
                    hidden = part.layer(hidden, plan, state if part.stateful else None)
        finally:
            self.recorder.layer = None
        return hidden


@frozen(eq=False)
class TimedSequence(SequentialForward):
    """Layers in sequence, with the embedding and the head timed."""

    recorder: Recorder = attrs.field(factory=Recorder)

    def step(self, batch: Batch, cache: Cache) -> Output:
        with self.recorder.span("step"):
            return super().step(batch, cache)

    def _embed(self, batch: Batch) -> F32:
        with self.recorder.span("embedding"):
            return super()._embed(batch)

    def _finish(self, x: F32, batch: Batch) -> F32:
        with self.recorder.span("logits"):
            return super()._finish(x, batch)


@define(eq=False)
class TimedWhole:
    """A forward that a backend runs in one piece: it can only be timed as a whole."""

    forward: Forward
    owner: str
    recorder: Recorder

    @property
    def layers(self) -> range:
        return self.forward.layers

    @property
    def grains(self) -> tuple[str, ...]:
        return self.forward.grains

    @property
    def batch_invariant(self) -> bool:
        return self.forward.batch_invariant

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        return self.forward.new_cache(kv_type, max_tokens)

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        return self.forward.cache_nbytes(kv_type, max_tokens)

    def step(self, batch: Batch, cache: Cache) -> Output:
        with self.recorder.span("whole model", self.owner):
            return self.forward.step(batch, cache)


class ProfilingBackend(Backend):
    """Binds what the chosen backends would bind, timed; used only by name.

    Args:
        inner: the backends, in order.
        whole: time a forward that runs in one piece as it is; else take the same backend's layers where it has them.
    """

    name = NAME

    def __init__(self, inner: Sequence[Backend], registry: Registry, recorder: Recorder, *, whole: bool) -> None:
        self.inner, self._registry, self._recorder, self._whole = list(inner), registry, recorder, whole

    def memory(self, network: Network, layers: range, options: BackendOptions) -> int:
        return max((backend.memory(network, layers, options) for backend in self.inner), default=0)

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        return max((backend.in_place(network, layers, options) for backend in self.inner), default=0)

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward:
        for backend in self.inner:
            if not knows(backend, network, options):
                continue
            owner = self._owner(backend)
            if not self._whole and all(knows(backend, network.blocks[i], options) for i in layers):
                self._recorder.note = f"{owner} runs the whole model in one call; here it is timed part by part"
                return self._sequence(network, layers, [backend], options)
            if (forward := backend.forward(network, layers, options)) is not None:
                return TimedWhole(forward, owner, self._recorder)
        return self._sequence(network, layers, self.inner, options)

    def _sequence(
        self, network: Network, layers: range, backends: Sequence[Backend], options: BackendOptions
    ) -> TimedSequence:
        bound = tuple(self._layer(i, network.blocks[i], backends, options) for i in layers)
        grains = tuple(" + ".join(f"{part.owner} {part.name}" for part in layer.parts) for layer in bound)
        ends = layers.stop == network.n_layer
        head = self._linear(network.head.dense.weight, backends, options) if ends else None
        embedding = evolve(network.embedding, weight=self._timed(network.embedding.weight))
        made = TimedSequence.of(evolve(network, embedding=embedding), layers, bound, grains, head, options.n_threads)
        return evolve(cast("TimedSequence", made), recorder=self._recorder)

    def _layer(self, index: int, block: Block, backends: Sequence[Backend], options: BackendOptions) -> TimedLayer:
        halves = [Block((op,), block.state if _holds(op, Attention) else None) for op in block.ops]
        for backend in backends:
            if not knows(backend, block, options):
                continue
            owner = self._owner(backend)
            if all(knows(backend, half, options) for half in halves):
                split = [backend.layer(half, options) for half in halves]
                bound = [layer for layer in split if layer is not None]
                return TimedLayer(index, self._parts(halves, bound, [owner] * len(bound)), self._recorder)
            if (whole := backend.layer(block, options)) is not None:
                return TimedLayer(index, (Part("layer", owner, whole, block.state is not None),), self._recorder)

        def bind(weight: Weight) -> Linear:
            return self._linear(weight, backends, options)

        layers = [ReferenceLayer.of(half, bind) for half in halves]
        return TimedLayer(index, self._parts(halves, layers, [REFERENCE] * len(layers)), self._recorder)

    def _parts(self, halves: Sequence[Block], layers: Sequence[Layer], owners: Sequence[str]) -> tuple[Part, ...]:
        return tuple(
            Part(part_name(half.ops[0]), owner, layer, half.state is not None)
            for half, layer, owner in zip(halves, layers, owners, strict=True)
        )

    def _linear(self, weight: Weight, backends: Sequence[Backend], options: BackendOptions) -> Linear:
        for backend in backends:
            if (bound := backend.linear(weight, options)) is not None:
                return TimedLinear(bound, self._owner(backend), weight.name, self._recorder)
        return TimedLinear(ReferenceLinear(self._timed(weight)), REFERENCE, weight.name, self._recorder)

    def _timed(self, weight: Weight) -> Weight:
        """The same weight with a codec that is timed."""
        owner = self._registry.owner("quant_formats", weight.format) or "core"
        return evolve(weight, format=TimedFormat(weight.format, owner, self._recorder))

    def _owner(self, backend: Backend) -> str:
        return REFERENCE if backend.name == REFERENCE else self._registry.owner("backends", backend)

    @hookimpl
    def sis_register_backends(self) -> list[Backend]:
        return [self]


def _holds(record: object, kind: type) -> bool:
    if isinstance(record, kind):
        return True
    if isinstance(record, Residual):
        return any(_holds(op, kind) for branch in record.branches for op in branch)
    return False


def part_name(op: Op) -> str:
    """``attention``, ``feed-forward``, ``experts``, several, or the op's own name."""
    kinds = {"attention": Attention, "feed-forward": FeedForward, "experts": Experts}
    return " + ".join(name for name, kind in kinds.items() if _holds(op, kind)) or type(op).__name__.lower()


def profiling(registry: Registry, backend: str | None, *, whole: bool = False) -> tuple[Registry, Recorder]:
    """A registry with a backend called `NAME` around ``backend`` (the best by default), and what it records."""
    recorder = Recorder()
    inner = choose_backends(registry, backend)
    wrapped = Plugin(NAME, ProfilingBackend(inner, registry, recorder, whole=whole))
    return Registry([*registry.plugins, wrapped], prefer=registry.prefer), recorder
