"""What crosses into C: every integer is held against the width of the field or argument that takes it.

ctypes cuts an integer that does not fit and says nothing: a count of 2**32 arrives as 0.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_uint32, c_uint64, c_void_p
from struct import Struct, error
from typing import Any, ClassVar

from sis_core.errors import BackendError

RANGES: dict[Any, tuple[int, int]] = {
    c_uint32: (0, (1 << 32) - 1), c_uint64: (0, (1 << 64) - 1), c_int32: (-(1 << 31), (1 << 31) - 1),
    c_void_p: (0, (1 << 8 * ctypes.sizeof(c_void_p)) - 1),
}  # fmt: skip


LETTERS: dict[Any, str] = {c_uint32: "I", c_uint64: "Q", c_int32: "i", c_void_p: "N", c_float: "f"}  # of `struct`


def refuse(where: str, name: str, kind: Any, value: object) -> BackendError:
    """What is raised for a value that a field or argument ``name`` of ``kind`` cannot hold."""
    least, most = RANGES.get(kind, (None, None))
    room = "a number" if least is None else f"an integer from {least} to {most}"
    return BackendError(f"{name} is {value!r}, but native code takes {room}", where=where)


class Structure(ctypes.Structure):
    """A structure of C whose fields take only what fits, when it is made and ever after.

    Subclasses have fields of the kinds in `RANGES`, floats, and nothing nested.

    Raises:
        BackendError: on a value that does not fit; it names structure and field.
        TypeError: where one is made with a name that is no field, or with too many values.
        AttributeError: where such a name is set.
    """

    c_name: ClassVar[str]
    _packer: ClassVar[Struct]
    _kinds: ClassVar[dict[str, tuple[Any, int, int]]] = {}
    _zeros: ClassVar[dict[str, int]] = {}
    _pointers: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, c_name: str, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.c_name = c_name
        fields: list[tuple[str, Any]] = cls.__dict__["_fields_"]
        cls._kinds = {name: (kind, *RANGES[kind]) for name, kind in fields if kind is not c_float}
        cls._zeros = {name: 0 for name, _ in fields}
        cls._pointers = frozenset(name for name, kind in fields if kind is c_void_p)
        cls._packer = Struct("@" + "".join(LETTERS[kind] for _, kind in fields))

    def __init__(self, /, *values: Any, **named: Any) -> None:
        """Fields in order or by name, 0 where nothing is given: written in one call, since a field alone takes 1 µs."""
        if None in named.values():
            named = {name: value for name, value in named.items() if value is not None or name not in self._pointers}
        fields = self._zeros | dict(zip(self._zeros, values, strict=False)) | named
        if len(fields) > len(self._zeros):
            unknown = ", ".join(named.keys() - self._zeros.keys())
            raise TypeError(f"{self.c_name} has no {unknown}")
        if len(values) > len(fields):
            raise TypeError(f"{self.c_name} has {len(fields)} fields, not {len(values)}")
        try:
            self._packer.pack_into(self, 0, *fields.values())
        except (error, OverflowError):  # told when they are set one by one
            super().__init__(*values, **named)

    @classmethod
    def fill(cls, memory: Any, at: int, *values: Any) -> None:
        """Write every field, in order, to byte ``at`` of ctypes ``memory``: one call.

        Raises:
            BackendError: on a value that does not fit, as ever.
        """
        try:
            cls._packer.pack_into(memory, at, *values)
        except (error, OverflowError):
            cls(*values)  # which says what of it
            raise

    @classmethod
    def read(cls, memory: Any, at: int) -> tuple[Any, ...]:
        """Every field, in order, from byte ``at`` of ctypes ``memory``."""
        return cls._packer.unpack_from(memory, at)

    def __setattr__(self, name: str, value: Any) -> None:
        known = self._kinds.get(name)
        if known is None and not hasattr(type(self), name):
            raise AttributeError(f"{self.c_name} has no {name}")
        try:
            if known is not None and value is not None and not known[1] <= value <= known[2]:
                raise refuse(self.c_name, name, known[0], value)
            super().__setattr__(name, value)
        except TypeError:
            raise refuse(self.c_name, name, known[0] if known else None, value) from None


class Argument:
    """The type of a function's argument, for ``argtypes``: an integer ``kind`` that takes only what fits."""

    def __init__(self, function: str, name: str, kind: Any) -> None:
        self.function, self.name, self.kind = function, name, kind
        self._least, self._most = RANGES[kind]

    def from_param(self, value: Any) -> Any:
        """What ctypes hands over for ``value``; BackendError where it does not fit."""
        try:
            if value is None or self._least <= value <= self._most:
                return self.kind(value)
        except TypeError:
            pass
        raise refuse(self.function, self.name, self.kind, value)


def taken(function: str, name: str, kind: Any) -> Any:
    """What goes into ``argtypes`` for an argument: integers are checked, the rest (text) is left to ctypes."""
    return Argument(function, name, kind) if kind in RANGES else kind
