"""What a backend is, and how several share one network.

A backend may answer at three grains, each optional, each faster than the one before: one linear, one layer, or a whole
forward. None means "not mine". Backends are asked in order of score; the numpy reference answers what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from attrs import frozen

from sis_core.block import Block, Network
from sis_core.invariant import RowByRow
from sis_core.quant import Weight
from sis_core.reference import ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.step import Forward, Layer, Linear

log = logging.getLogger(__name__)


@frozen
class BackendOptions:
    """What the user chose for arithmetic.

    Attributes:
        n_threads: threads a step may use; None lets the backend decide.
        pack: True to copy weights into the backend's layout, False to read them in place, None to pack when memory
            allows.
        gradual: True to pack between the first steps, which read in place what has not been packed, False to pack at
            load, None to pack at load only when ``pack`` was asked for.
        decode: weights in formats that only Python can decode: True to decode them at load, False to decode panels in
            each step, None to decode them at load when memory allows.
        pin: True to keep each thread on a core of its own, where the system can.
        batch_invariant: results must not depend on which other rows share a step; see `sis_core.invariant`.
        kv_type: the cache type that sessions will ask for; a backend that cannot keep it answers None.
        progress: called with bytes done and bytes in all while weights are packed.
    """

    n_threads: int | None = None
    pack: bool | None = None
    gradual: bool | None = None
    decode: bool | None = None
    pin: bool = False
    batch_invariant: bool = False
    kv_type: str = "f16"
    progress: Callable[[int, int], None] | None = None


class Backend:
    """Base of all backends; a subclass overrides the grains it offers. Instances are immutable and thread-safe.

    Attributes:
        name: unique among backends.
        score: who is asked first; 0 or less is used only when named.
    """

    name: ClassVar[str]
    score: ClassVar[int] = 0

    def idle_reason(self) -> str | None:
        """One line why this backend cannot work on this machine, or None when it can."""
        return None

    def describe(self) -> str:
        """One line on what this backend uses here (instruction set, threads …), for `sis doctor`."""
        return (type(self).__doc__ or "").strip().partition("\n")[0]

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward | None:
        """The whole range of layers at once, or None."""
        return None

    def layer(self, block: Block, options: BackendOptions) -> Layer | None:
        """One block, or None when it has an op, a field value or a state that this backend does not know."""
        return None

    def linear(self, weight: Weight, options: BackendOptions) -> Linear | None:
        """One weight, or None when this backend does not know its format."""
        return None

    def memory(self, network: Network, options: BackendOptions) -> int:
        """Bytes of anonymous memory that binding ``network`` will take for weights, beside the file and the cache."""
        return 0

    def in_place(self, network: Network, options: BackendOptions) -> int:
        """Bytes of weights that `memory` does not count: steps read them from the file. All of them, or by default none
        where `memory` counts some."""
        return 0 if self.memory(network, options) else views_nbytes(network.weights())


def views_nbytes(weights: Iterable[Weight]) -> int:
    """Bytes of different views of tensors."""
    views = {(w.name, w.first_row, w.first_col, w.shape): w.nbytes for w in weights}
    return sum(views.values())


class NumpyBackend(Backend):
    """The reference. It leaves every grain to `bind`, which falls back to the reference anyway."""

    name = "numpy"
    score = 1


def why_idle(backend: Backend) -> str | None:
    """`Backend.idle_reason`, guarded: a backend that cannot even say why it is idle is idle for that."""
    try:
        return backend.idle_reason()
    except Exception as error:
        return f"idle_reason failed: {type(error).__name__}: {error}"


def usable(backends: Sequence[Backend]) -> list[Backend]:
    """The backends that may be used without being named, best first."""
    ready = [backend for backend in backends if backend.score > 0 and why_idle(backend) is None]
    return sorted(ready, key=lambda backend: (-backend.score, backend.name))


def bind(
    network: Network, backends: Sequence[Backend], options: BackendOptions, layers: range | None = None
) -> Forward:
    """A forward for ``layers`` (all by default), asking ``backends`` in the order given."""
    layers = range(network.n_layer) if layers is None else layers
    forward = _bind(network, backends, options, layers)
    if options.batch_invariant and not getattr(forward, "batch_invariant", False):
        return RowByRow(forward)
    return forward


def _bind(network: Network, backends: Sequence[Backend], options: BackendOptions, layers: range) -> Forward:
    for backend in backends:
        if (forward := backend.forward(network, layers, options)) is not None:
            return forward

    def linear(weight: Weight) -> Linear:
        for backend in backends:
            if (bound := backend.linear(weight, options)) is not None:
                linear_owners.add(backend.name)
                return bound
        return ReferenceLinear(weight)

    bound_layers: list[Layer] = []
    grains: list[str] = []
    for i in layers:
        linear_owners: set[str] = set()
        bound, grain = _bind_layer(network.blocks[i], backends, options)
        if bound is None:
            bound = ReferenceLayer.of(network.blocks[i], linear)
            grain = " + ".join(["numpy layer", *(f"{name} linear" for name in sorted(linear_owners))])
        bound_layers.append(bound)
        grains.append(grain)
    linear_owners = set()
    head = linear(network.head.dense.weight) if layers.stop == network.n_layer else None
    return SequentialForward.of(network, layers, tuple(bound_layers), tuple(grains), head, options.n_threads)


def _bind_layer(block: Block, backends: Sequence[Backend], options: BackendOptions) -> tuple[Layer | None, str]:
    for backend in backends:
        if (layer := backend.layer(block, options)) is not None:
            return layer, f"{backend.name} layer"
    return None, ""
