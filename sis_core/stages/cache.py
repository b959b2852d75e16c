"""What a session sees of the caches of all stages: their tables. The storage lies with the stages.

Tables follow from the steps and the edits alone, so that they are kept here too, and asked here. What changes them goes
to the stages with the next step: a token costs no message beside its hidden states.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from sis_core.block import State
from sis_core.cache.kv_types import value_bytes
from sis_core.cache.paged import Layout
from sis_core.cache.pages import PAGE_SIZE
from sis_core.cache.pieces import Pieces
from sis_core.cache.table import nothing_to_copy
from sis_core.cache.tabled import Tabled
from sis_core.cache.tables import Reservations, Tables
from sis_core.errors import BackendError
from sis_core.stages.stage import Edit, Order
from sis_core.step import Batch

MAGIC = b"sis-stages-1\n"


class Keepers(Protocol):
    """Who reaches the stages for a cache."""

    def save(self, order: Order, sequence: int) -> list[list[bytes]]: ...

    def load(self, order: Order, sequence: int, data: list[list[bytes]]) -> None: ...


class StagedCache(Tabled):
    """The tables of a cache whose pages the stages hold."""

    def __init__(self, layout: Layout, kv_type: str, max_tokens: int, keepers: Keepers) -> None:
        self._layout, self._kv_type, self._max_tokens, self._keepers = layout, kv_type, max_tokens, keepers
        self.keys: list[str] = []  # under which stages may hold something of it
        self.forget()

    def forget(self) -> None:
        """Begin anew, with nothing: what the stages have of it is theirs to drop."""
        self._key = uuid.uuid4().hex
        self.keys.append(self._key)
        self.tables = Tables(self._layout.kinds, self._max_tokens)
        self._new = True
        self._edits: list[Edit] = []

    def order(self) -> Order:
        """What the stages have to be told, and now are."""
        order = Order(self._key, self._kv_type, self._max_tokens, self._new, tuple(self._edits))
        self._new = False
        self._edits.clear()
        return order

    def reserve(self, batch: Batch) -> Reservations:
        """See `PagedCache.reserve`."""
        return self.tables.reserve(batch, [nothing_to_copy] * len(self.tables.all))

    @property
    def nbytes(self) -> int:
        found = 0
        for state, number in zip(self._layout.states, self._layout.table_of, strict=True):
            if state is not None:
                found += int(self.tables.all[number].n_used * _page_nbytes(state, self._kv_type))
        return found

    def truncate(self, sequence: int, n: int) -> None:
        super().truncate(sequence, n)
        self._edits.append(("truncate", (sequence, n)))

    def fork(self, source: int, target: int, n: int) -> None:
        super().fork(source, target, n)
        self._edits.append(("fork", (source, target, n)))

    def mark(self, sequence: int) -> None:
        super().mark(sequence)
        self._edits.append(("mark", (sequence,)))

    def evict(self, sequence: int, pages: Iterable[int], windowed: bool = False) -> None:
        gone = tuple(pages)
        super().evict(sequence, gone, windowed)
        self._edits.append(("evict", (sequence, gone, windowed)))

    def drop(self, sequence: int) -> None:
        super().drop(sequence)
        self._edits.append(("drop", (sequence,)))

    def save(self, sequence: int) -> Iterator[bytes]:
        self.tables.check_whole(sequence)
        return self._saved(sequence)

    def _saved(self, sequence: int) -> Iterator[bytes]:
        parts = self._keepers.save(self.order(), sequence)
        header: dict[str, Any] = {
            "length": self.length(sequence),
            "first": [table.first(sequence) for table in self.tables.all],
            "pieces": [[len(piece) for piece in part] for part in parts],
        }
        data = json.dumps(header).encode()
        yield MAGIC + len(data).to_bytes(8, "little") + data
        for part in parts:
            yield from part

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        saved = Pieces(data)
        wrong = BackendError("these bytes are not a saved sequence of this model in these stages", where="cache")
        if saved.take(len(MAGIC)) != MAGIC:
            raise wrong
        try:
            header = json.loads(saved.take(int.from_bytes(saved.take(8), "little")))
            length, first = header["length"], header["first"]
            parts = [[saved.take(n) for n in part] for part in header["pieces"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise wrong from None
        if saved.take(1) or not self.tables.can_begin(length, first):
            raise wrong
        try:
            for table, begin in zip(self.tables.all, first, strict=True):
                table.replace(sequence, length, begin)
            self._keepers.load(self.order(), sequence, parts)
        except BaseException:
            self.drop(sequence)
            raise


def _page_nbytes(state: State, kv_type: str) -> float:
    if state.window == 0:
        return state.sequence_nbytes
    return PAGE_SIZE * state.token_nbytes(value_bytes(kv_type))
