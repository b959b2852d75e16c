"""A backend over a library of kernels. A plugin gives it a name and says which package holds the library."""

from __future__ import annotations

import logging
from typing import ClassVar

from sis_core.backend import Backend, BackendOptions, Handling, views_nbytes
from sis_core.backends.native import abi
from sis_core.backends.native.forward import NativeForward, NativeLayer, NativeLinear
from sis_core.backends.native.kinds import how_packed
from sis_core.backends.native.library import Library, huge_pages, open_library, read_bandwidth
from sis_core.backends.native.program import Program, dense_weights
from sis_core.backends.native.rotations import Rotations
from sis_core.backends.native.runner import Runner
from sis_core.backends.native.unsupported import Unsupported
from sis_core.backends.native.weights import Sketch, Store, key
from sis_core.block import Block, Network, Norm
from sis_core.cache.paged import Layout
from sis_core.errors import BackendError
from sis_core.machine.cores import default_threads, describe_threads, pinned_cpus
from sis_core.quant import Weight

log = logging.getLogger(__name__)


class NativeBackend(Backend):
    """Base of the backends whose arithmetic is C.

    Attributes:
        package: the import package that holds ``libsis``.
    """

    package: ClassVar[str]

    def library(self) -> Library:
        """The library; BackendError where there is none."""
        return open_library(self.package)

    def idle_reason(self) -> str | None:
        try:
            self.library()
        except BackendError as error:
            return str(error)
        return None

    def describe(self) -> str:
        if reason := self.idle_reason():
            return reason
        library = self.library()
        note = f" ({library.isa_reason})" if library.isa_reason else ""
        speed = self.read_bandwidth() / 1e9
        threads = describe_threads()
        return f"{library.isa_name}{note}, {threads}, huge pages: {huge_pages()}, memory read at {speed:.1f} GB/s"

    @property
    def instructions(self) -> str:
        return "" if self.idle_reason() else self.library().isa_name

    def read_bandwidth(self, n_threads: int | None = None) -> float:
        """Bytes per second that can be read from memory here: the limit of decoding."""
        return read_bandwidth(self.library(), n_threads)

    def knows(self, record: Network | Block | Weight, options: BackendOptions) -> bool:
        return self._refusal(record, options) is None

    def forward(self, network: Network, layers: range, options: BackendOptions) -> NativeForward | None:
        if reason := self._refusal(network, options, layers):
            log.info(
                "%s does not know %s: layers one by one, and those it does not know by the linear", self.name, reason
            )
            return None
        ends = layers.stop == network.n_layer
        store, runner = self._store(options, gradual=options.gradual is True), self._runner(options)
        weights = dense_weights([network.blocks[i] for i in layers], network.head if ends else None)
        store.bind(weights, options.progress)
        return NativeForward(self.name, network, layers, store, runner)

    def layer(self, block: Block, options: BackendOptions) -> NativeLayer | None:
        if reason := self._refusal(block, options):
            log.debug("%s does not know %s: linear by linear", self.name, reason)
            return None
        store, runner = self._store(options), self._runner(options)
        store.bind(dense_weights([block], None), options.progress)
        return NativeLayer(block, _width(block), store, runner)

    def linear(self, weight: Weight, options: BackendOptions) -> NativeLinear | None:
        if self._refusal(weight, options):
            return None
        store, runner = self._store(options), self._runner(options)
        store.bind([weight], options.progress)
        return NativeLinear.of(weight, store, runner)

    def _refusal(
        self, record: Network | Block | Weight, options: BackendOptions, layers: range | None = None
    ) -> str | None:
        """What of a record the kernels do not know, or None: its program is made, and no weight bound for it."""
        n_threads = options.n_threads or default_threads()
        sketch = Sketch(self.library(), n_threads, options.pack is not False)
        if isinstance(record, Weight):
            known = len(record.shape) == 2 and self._decoded([record], sketch, options)
            return None if known else repr(record)
        if options.kv_type not in abi.KV_TYPES:
            return f"the cache type {options.kv_type}"
        try:
            if isinstance(record, Block):
                weights = list(dense_weights([record], None))
                Program(sketch, Rotations(), _width(record)).block(record)
            else:
                chosen = range(record.n_layer) if layers is None else layers
                self._check_ends(record, chosen)
                layout = Layout(record.blocks, chosen)
                ends, tables = chosen.stop == record.n_layer, (0, 0) if chosen.start == 0 else None
                weights = list(dense_weights([record.blocks[i] for i in chosen], record.head if ends else None))
                Program(sketch, Rotations(), record.n_embd).network(record, layout, tables, logits=ends)
        except Unsupported as reason:
            return str(reason)
        if not self._decoded(weights, sketch, options):
            return "a format that only Python decodes without decoding it at load, which memory does not allow"
        return None

    def handling(self, weight: Weight, options: BackendOptions) -> Handling | None:
        if self.idle_reason() or not self._decoded([weight], store := self._store(options), options):
            return None
        nbytes = store.nbytes([weight]) or weight.nbytes
        if store.fused(weight):
            return Handling("multiplied by the format's own kernel", nbytes)
        if kind := store.declared(weight):
            return Handling(f"packed into tiles as its layout says{how_packed(weight, kind, nbytes)}", nbytes)
        if store.only_python(weight):
            return Handling(f"decoded at load to 16 bits: {store.why_not_declared(weight)}", nbytes)
        if store.format_of(weight) == abi.DECODED:
            return Handling("decoded in each step", nbytes)
        return Handling("packed into tiles" if store.packs(weight) else "read in place, as tiles in each step", nbytes)

    def memory(self, network: Network, layers: range, options: BackendOptions) -> int:
        if self.idle_reason():
            return 0
        store = self._store(options)
        tables = sum(nbytes for _, nbytes in _own_tables(network, layers, store))
        return store.nbytes(_copied(network, layers, store, options)) + tables

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        if self.idle_reason():
            return super().in_place(network, layers, options)
        store = self._store(options)
        tables = [table for table, _ in _own_tables(network, layers, store)]
        copied = {key(weight) for weight in _copied(network, layers, store, options) + tables}
        return views_nbytes(weight for weight in network.weights(layers) if key(weight) not in copied)

    def _store(self, options: BackendOptions, *, gradual: bool = False) -> Store:
        n_threads = options.n_threads or default_threads()
        return Store(self.library(), n_threads, options.pack is not False, gradual=gradual)

    def _runner(self, options: BackendOptions) -> Runner:
        n_threads = options.n_threads or default_threads()
        cpus = pinned_cpus(min(n_threads, abi.MAX_THREADS)) if options.pin else None
        return Runner(self.library(), Rotations(), n_threads, cpus, invariant=options.batch_invariant)

    @staticmethod
    def _decoded(weights: list[Weight], store: Store, options: BackendOptions) -> bool:
        """Whether native code can read all of these, decoded at load or not."""
        return options.decode is not False or not any(map(store.only_python, weights))

    @staticmethod
    def _check_ends(network: Network, layers: range) -> None:
        """What a step relies on when it writes and reads by address."""
        embedding, head, n_embd = network.embedding, network.head, network.n_embd
        if layers.start == 0:
            if embedding.weight.n_cols != n_embd or embedding.weight.n_rows < network.n_vocab:
                raise Unsupported(f"{embedding.weight!r} for {network.n_vocab} tokens of {n_embd} values")
            if embedding.positions is not None and embedding.positions.n_cols != n_embd:
                raise Unsupported(f"{embedding.positions!r} for rows of {n_embd} values")
        if layers.stop == network.n_layer and head.dense.weight.n_rows != network.n_vocab:
            raise Unsupported(f"{head.dense.weight!r} for {network.n_vocab} tokens")


def _width(block: Block) -> int:
    """The width of the rows that a block works on."""
    for op in block.flat():
        if read := op.reads():
            return read[0].n_cols
        if isinstance(op, Norm) and op.weight:
            return op.weight.n_cols
    raise Unsupported("a block without a matrix")


def _own_tables(network: Network, layers: range, store: Store) -> list[tuple[Weight, int]]:
    """The tables of the embedding that binding these layers puts into memory for themselves, and their bytes there."""
    if layers.start:
        return []
    embedding = network.embedding
    head = network.head.dense.weight if layers.stop == network.n_layer else None
    tables = [embedding.weight] + ([embedding.positions] if embedding.positions else [])
    return [(table, nbytes) for table in tables if (nbytes := store.table_nbytes(table, head))]


def _copied(network: Network, layers: range, store: Store, options: BackendOptions) -> list[Weight]:
    """The matrices that binding these layers copies."""
    found = [network.head.dense.weight] if layers.stop == network.n_layer else []
    for block in network.blocks[layers.start : layers.stop]:
        try:
            found += dense_weights([block], None)
        except Unsupported:
            continue
    decode = options.decode is not False
    return [weight for weight in found if store.packs(weight) and (decode or not store.only_python(weight))]
