"""A list of operations in native memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from sis_core.backends.native import abi, passing
from sis_core.backends.native.library import address
from sis_core.backends.native.liveness import conflicts
from sis_core.backends.native.registers import needed
from sis_core.backends.native.weights import Store


class Compiled:
    """A program in native memory, with everything that it points to.

    Args:
        ops: in the order in which they run; what passes among them is marked here.
        cols: how wide each register may be.

    Attributes:
        entry: the whole program, as native code takes it.
        in_place: what of it lies in files.
        watched: query heads of each attention over the whole text, in order.
        after_embedding: of the program for hidden states: the same ops, less those of the embedding.
    """

    def __init__(
        self,
        store: Store,
        ops: Sequence[abi.Op],
        cols: Sequence[int],
        n_out_cols: int,
        n_embedding: int,
        watched: Sequence[int] = (),
        kept: Sequence[object] = (),
    ) -> None:
        self._store, self.in_place, self._kept = store, store.in_place, tuple(kept)
        self.watched = tuple(watched)
        touched = passing.touched_by(ops)
        passing.mark(ops, touched)
        self._ops = (abi.Op * len(ops))(*ops)
        self._registers = (abi.Register * len(cols))(*needed(ops, touched, cols))
        self._apart = conflicts(ops, touched, len(cols))
        self.n_out_cols = n_out_cols
        self._programs = [
            abi.Program(
                abi.PROGRAM, len(ops) - first, len(cols), n_out_cols,
                ctypes.addressof(self._ops) + first * ctypes.sizeof(abi.Op),
                ctypes.addressof(self._registers), address(self._apart),
            )
            for first in (0, n_embedding)
        ]  # fmt: skip
        self.entry, self.after_embedding = map(ctypes.byref, self._programs)
