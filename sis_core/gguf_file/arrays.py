"""Metadata arrays, read when asked for."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from sis_core.errors import GGUFError
from sis_core.gguf_file.tables import U64, ValueType

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scalar: TypeAlias = "int | float | bool | bytes"


class Array(Sequence[Scalar]):
    """A lazy, immutable sequence of numbers, booleans or byte strings.

    Elements of string arrays are bytes and stay so: a vocabulary may hold pieces that are not UTF-8.
    It owns a copy of the file's header, so it outlives the file.
    """

    __slots__ = ("_data", "_end", "_layout", "_n", "_offsets", "_start", "element_type", "where")

    element_type: str  #: the GGUF name of the elements' type: "uint32", "string" …
    where: str  #: file and key, for messages

    def __init__(self, data: bytes | bytearray, start: int, n: int, type: ValueType, where: str) -> None:
        self._data, self._start, self._n = data, start, n
        self._layout: Struct | None = type.layout
        self._end = start + n * (type.layout.size if type.layout else 0)
        self._offsets: array[int] | None = None
        self.element_type, self.where = type.name, where

    @classmethod
    def of_strings(cls, data: bytes | bytearray, offsets: array[int], type: ValueType, where: str) -> Array:
        """An array of strings: `offsets` has where each length stands and, last, where the array ends."""
        made = cls(data, offsets[0], len(offsets) - 1, type, where)
        made._offsets, made._end = offsets, offsets[-1]
        return made

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Scalar: ...

    @overload
    def __getitem__(self, index: slice) -> list[Scalar]: ...

    def __getitem__(self, index: int | slice) -> Scalar | list[Scalar]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(f"index {index} of an array of {self._n}")
        return self._at(index % self._n)

    def _at(self, i: int) -> Scalar:
        if self._layout is None:
            return self._string(i)
        value: Scalar = self._layout.unpack_from(self._data, self._start + i * self._layout.size)[0]
        return value

    def _string(self, i: int) -> bytes:
        assert self._offsets is not None
        return bytes(self._data[self._offsets[i] + U64.size : self._offsets[i + 1]])

    def __iter__(self) -> Iterator[Scalar]:
        if self._layout is None:
            return iter(self.bytes_list())
        return (value for (value,) in self._layout.iter_unpack(memoryview(self._data)[self._start : self._end]))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", ..." if self._n > 3 else "")
        return f"<Array of {self._n} {self.element_type}: {shown}>"

    def encoded(self) -> bytes:
        """The elements as GGUF stores them, for a faithful copy."""
        return bytes(memoryview(self._data)[self._start : self._end])

    def bytes_list(self) -> list[bytes]:
        """All elements of a string array.

        Raises:
            GGUFError: the elements are not strings.
        """
        if self._offsets is None:
            raise GGUFError(f"holds {self.element_type}, not strings", where=self.where)
        data, start, prefix = self.encoded(), self._start, U64.size
        return [data[a - start + prefix : b - start] for a, b in pairwise(self._offsets)]

    def numpy(self) -> NDArray[Any]:
        """All elements of a numeric array: `(n,)`, little-endian, a read-only view.

        Raises:
            GGUFError: the elements are strings.
        """
        if self._layout is None:
            raise GGUFError("holds strings, not numbers", where=self.where)
        import numpy as np

        return np.frombuffer(memoryview(self._data).toreadonly(), np.dtype(self._layout.format), self._n, self._start)


Value: TypeAlias = "int | float | bool | str | Array"
