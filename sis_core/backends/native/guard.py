"""Bytes of files that native code reads in place, and what becomes of them when somebody cuts or rewrites the file."""

from __future__ import annotations

from typing import TypeAlias

from sis_core.arrays import U8
from sis_core.backends.native import abi
from sis_core.backends.native.library import Library, address
from sis_core.errors import GGUFError
from sis_core.quant import Weight


class Guarded:
    """Bytes in a file that may be read while this lives: where the file is cut, zeros are read and the guard is hit."""

    def __init__(self, library: Library, start: int, n_bytes: int) -> None:
        self._library = library
        self._handle = library.guard(start, n_bytes)

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", 0):
            self._library.unguard(handle)

    @property
    def hit(self) -> bool:
        """Whether anybody read what was not there."""
        return bool(self._library.guard_hit(self._handle))


class Guard(Guarded):
    """Rows of a weight in a file."""

    def __init__(self, library: Library, weight: Weight, rows: U8) -> None:
        self.check, self._name = weight.check, weight.name
        self._rows = rows  # unmapped after `__del__`, so never while the address is guarded
        n_bytes = (len(rows) - 1) * rows.strides[0] + rows.shape[1] if rows.size else 0
        super().__init__(library, address(rows), n_bytes)

    def check_hit(self) -> None:
        """GGUFError if anybody read what was not there."""
        if self.hit:
            self.check()
            raise GGUFError(
                "could not be read from the file", where=self._name, fix="check the disk, and open the model again"
            )


Seen: TypeAlias = tuple[tuple[Guard, ...], int]


class InPlace:
    """Everything that the programs of one model read in place, which grows less while weights are packed."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._weights: list[abi.Weight] = []
        self._guards: tuple[Guard, ...] | None = ()
        self._hits = library.guard_hits()  # of all guards, when those here were last looked at

    def add(self, bound: abi.Weight) -> None:
        """Take care of a weight as long as it has a guard."""
        self._weights.append(bound)
        self._guards = None

    def changed(self) -> None:
        """Say that a weight may have lost its guard since."""
        self._guards = None

    def before_step(self) -> Seen | None:
        """GGUFError if a file is not what it was when it was opened, or was cut since; else what `after_step` wants to
        know."""
        guards = self._guards
        if guards is None:
            self._weights = [bound for bound in self._weights if bound.guard]
            guards = self._guards = tuple(bound.guard for bound in self._weights if bound.guard)
        if not guards:
            return None
        for check in {guard.check for guard in guards}:  # one for each file
            check()
        hits = self._library.guard_hits()
        if hits != self._hits:  # between steps too files are read, ahead of those
            for guard in guards:
                guard.check_hit()
            self._hits = hits
        return guards, hits

    def after_step(self, seen: Seen | None) -> None:
        """GGUFError if a file was cut during the step: its result is worth nothing."""
        if seen is not None and self._library.guard_hits() != seen[1]:
            for guard in seen[0]:
                guard.check_hit()
