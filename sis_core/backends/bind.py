"""How backends share one network: each is asked in order, and the numpy reference answers what is left."""

from __future__ import annotations

from collections.abc import Sequence

from sis_core.backend import Backend, BackendOptions, Forward, Layer, Linear
from sis_core.backends.numpy import ReferenceLayer, ReferenceLinear, SequentialForward
from sis_core.backends.row_by_row import RowByRow
from sis_core.block import Block, Network
from sis_core.errors import FOREIGN, BackendError, blaming
from sis_core.quant import Weight


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
    if options.batch_invariant and not forward.batch_invariant:
        return RowByRow(forward)
    return forward


def _bind(network: Network, backends: Sequence[Backend], options: BackendOptions, layers: range) -> Forward:
    for backend in backends:
        with blaming(BackendError, f"the backend {backend.name!r}"):
            forward = backend.forward(network, layers, options)
        if forward is not None:
            return forward

    def linear(weight: Weight) -> Linear:
        for backend in backends:
            with blaming(BackendError, f"the backend {backend.name!r}", weight.name):
                bound = backend.linear(weight, options)
            if bound is not None:
                linear_owners.add(backend.name)
                return bound
        return ReferenceLinear(weight)

    bound_layers: list[Layer] = []
    grains: list[str] = []
    sharing = {i for reader in layers if (i := network.blocks[reader].reads_state_of) is not None}
    sharing |= {i for i in layers if network.blocks[i].reads_state_of is not None}
    for i in layers:
        linear_owners: set[str] = set()
        # Layers that read one storage must be of one backend.
        bound, grain = (None, "") if i in sharing else _bind_layer(network.blocks[i], backends, options)
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
        with blaming(BackendError, f"the backend {backend.name!r}"):
            layer = backend.layer(block, options)
        if layer is not None:
            return layer, f"{backend.name} layer"
    return None, ""


def knows(backend: Backend, record: Network | Block | Weight, options: BackendOptions) -> bool:
    """`Backend.knows`, guarded: BackendError naming a backend that fails to answer."""
    with blaming(BackendError, f"the backend {backend.name!r}"):
        return backend.knows(record, options)


def why_idle(backend: Backend) -> str | None:
    """`Backend.idle_reason`, guarded: a backend that cannot even say why it is idle is idle for that."""
    try:
        return backend.idle_reason()
    except FOREIGN as error:
        return f"idle_reason failed: {type(error).__name__}: {error}"
