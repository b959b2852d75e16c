"""A cache of pages: tables that know which page holds what, and the storage of each layer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sis_core.backend import LayerState
from sis_core.block import Attention, Block, State, find
from sis_core.cache.kv_types import saved_as
from sis_core.cache.pieces import Pieces
from sis_core.cache.tabled import Tabled
from sis_core.cache.tables import CopyPage, Reservations, Tables, kinds_of, n_pages_of
from sis_core.errors import BackendError
from sis_core.step import Batch

MAGIC = b"sis-kv-2\n"
MAX_HEADER = 1 << 16


class Layout:
    """Which table and which storage each of some layers reads.

    Attributes:
        layers: their numbers in the network.
        states: for each layer the record of its own state, or None.
        kinds: the windows of the tables; see `kinds_of`.
        table_of: for each layer the index of its table.
        storage_of: for each layer the index of the layer whose state it reads: its own, but for `Block.reads_state_of`.
    """

    def __init__(self, blocks: Sequence[Block], layers: range) -> None:
        """``blocks``: the whole network's. BackendError for a layer that reads what these layers do not keep."""
        self.layers = layers
        self.states: list[State | None] = [blocks[i].state for i in layers]
        self.kinds = kinds_of(self.states)
        self.table_of: list[int] = []
        self.storage_of: list[int] = []
        for at, i in enumerate(layers):
            source = at
            if (other := blocks[i].reads_state_of) is not None:
                source = other - layers.start
                if not 0 <= source < at or self.states[source] is None or self.states[at] is not None:
                    raise BackendError(
                        f"layer {i} reads the state of layer {other}, which is no earlier one of these with a state",
                        where=f"layers {layers.start} to {layers.stop - 1}",
                        fix="keep layers that share a state in one range",
                    )
            state = self.states[source]
            kept = state.window if state else None
            for op in find(blocks[i], Attention):
                if kept is not None and (op.window is None or op.window > kept):
                    raise BackendError(
                        f"its attention looks back further than the {kept} tokens that its state keeps",
                        where=f"layer {i}",
                        fix="give the block the state that the attention says, `Attention.state`",
                    )
            self.storage_of.append(source)
            self.table_of.append(0 if state is None else self.kinds.index(state.window))

    def n_pages(self, at: int, max_tokens: int) -> int:
        """Pages of the table of layer ``at``."""
        return n_pages_of(self.kinds[self.table_of[at]], max_tokens)


class PagedCache(Tabled):
    """Tables and, for each layer, the storage that its backend made."""

    def __init__(
        self, layout: Layout, states: Sequence[LayerState | None], max_tokens: int, kv_type: str, owner: object
    ) -> None:
        """
        Args:
            states: for each layer its own storage, or None.
            owner: a token of the forward that makes the cache; another one must not touch storage of another shape.
        """
        self.layout, self.kv_type, self.owner = layout, kv_type, owner
        self.tables = Tables(layout.kinds, max_tokens)
        self.states = states
        self.read: list[Any] = [states[source] for source in layout.storage_of]  # what each layer reads
        self._of_table: list[list[LayerState]] = [
            [state for state, table in zip(states, layout.table_of, strict=True) if state and table == number]
            for number in range(len(layout.kinds))
        ]
        self._copies: list[CopyPage] = [_copier(own) for own in self._of_table]

    @property
    def nbytes(self) -> int:
        return sum(
            table.n_used * sum(state.page_nbytes for state in states)
            for table, states in zip(self.tables.all, self._of_table, strict=True)
        )

    def check_owner(self, owner: object) -> None:
        """BackendError unless the forward with this token made the cache."""
        if self.owner is not owner:
            raise BackendError("this cache was made by another model or backend", where="step")

    def reserve(self, batch: Batch, n_more: int = 0) -> Reservations:
        """Room for a batch while it runs, and for ``n_more`` rows after a single one: a plan for each table. Pages that
        are shared are copied before they are written."""
        return self.tables.reserve(batch, self._copies, n_more)

    def _shape(self) -> list[int]:
        return [state.page_nbytes if state else 0 for state in self.states]

    def save(self, sequence: int) -> Iterator[bytes]:
        self.tables.check_whole(sequence)
        return self._saved(sequence)

    def _saved(self, sequence: int) -> Iterator[bytes]:
        first = [table.first(sequence) for table in self.tables.all]
        header = {
            "length": self.length(sequence),
            "first": first,
            "kv_type": saved_as(self.kv_type),
            "page_nbytes": self._shape(),
        }
        yield MAGIC + json.dumps(header).encode() + b"\n"
        for table, states in zip(self.tables.all, self._of_table, strict=True):
            for page in table.pages(sequence):
                if page >= 0:
                    yield b"".join(state.save_page(page) for state in states)

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        saved = Pieces(data)
        wrong = BackendError("these bytes are not a saved sequence of this model and cache type", where="cache")
        try:
            if saved.take(len(MAGIC)) != MAGIC:
                raise wrong
            header = json.loads(saved.line(MAX_HEADER))
            same = header["kv_type"] == saved_as(self.kv_type) and header["page_nbytes"] == self._shape()
            length, first = header["length"], header["first"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise wrong from None
        if not same or not self.tables.can_begin(length, first):
            raise wrong
        try:
            for table, states, begin in zip(self.tables.all, self._of_table, first, strict=True):
                for page in table.replace(sequence, length, begin):
                    for state in states:
                        state.load_page(page, saved.take(state.page_nbytes))
            if saved.take(1):
                raise wrong
        except BaseException as error:
            self.drop(sequence)
            raise wrong if isinstance(error, BackendError) else error from None


def _copier(states: Sequence[LayerState]) -> CopyPage:
    def copy_page(source: int, target: int) -> None:
        for state in states:
            state.copy_page(source, target)

    return copy_page
