"""Writing GGUF files of any size: tensors are declared first and streamed later; a file appears whole or not at all.

The layout is GGUF version 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). A format that
GGUF has no id for is stored as `sis_core.gguf_file.foreign` describes, so that every GGUF tool can list the file.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from pathlib import Path
from struct import error, pack
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from attrs import frozen

from sis_core.errors import GGUFError, SourceError
from sis_core.gguf_file import TENSOR_TYPES, Array, GGUFFile, Value, foreign
from sis_core.gguf_file.cursor import show
from sis_core.gguf_file.tables import (
    ARRAY,
    DEFAULT_ALIGNMENT,
    I8,
    MAGIC,
    MIN_ALIGNMENT,
    TENSOR_TYPES_BY_NAME,
    U64,
    VALUE_TYPES,
    ValueType,
    align_up,
    is_alignment,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Chunk: TypeAlias = "bytes | bytearray | memoryview | NDArray[Any]"
Writable: TypeAlias = "Value | Sequence[int | float | bool | str | bytes] | NDArray[Any] | np.generic"

VERSION = 3

#: Keys that follow from the file being written. What a copied file said about itself is left out.
OWN_KEYS = re.compile(r"general\.alignment|sis\.tensor\..*|split\..*", re.DOTALL)

_VALUE_TYPES = {type.name: type for type in VALUE_TYPES.values()}
_TYPE_ID = re.compile(r"type ([0-9]{1,9})", re.ASCII)


class GGUFWriter:
    """Writes one GGUF file.

    Nothing is on disk before `write()`, and no tensor is in memory: each brings an iterable of chunks.

        writer = GGUFWriter("out.gguf", file.metadata, types=file.metadata_types)
        writer.add_tensor("output.weight", (32000, 4096), "Q8_0", (quantize(panel) for panel in panels))
        writer.write()

    Args:
        path: of the file; an old one is replaced when the new one is complete.
        metadata: keys and values. An int becomes uint32, int32, uint64 or int64, the first that holds it; a float
            float32; a list of ints int32, int64 or uint64; numpy values and `Array`s keep their type. Left out, because
            they are the writer's: `general.alignment`, `split.*` and `sis.tensor.*`.
        types: GGUF's type for some of the keys: "uint32", "array[string]" … as in `GGUFFile.metadata_types`.
        alignment: of tensors, in bytes: a power of 2 of at least 8.

    Raises:
        GGUFError: a value has no type in GGUF, or does not fit into the one it should have.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Writable],
        *,
        types: Mapping[str, str] | None = None,
        alignment: int = DEFAULT_ALIGNMENT,
    ) -> None:
        self.path, self.alignment = Path(path), alignment
        if not is_alignment(alignment):
            raise self._refuse(f"the alignment {alignment} is not a power of 2 of at least {MIN_ALIGNMENT}")
        self._tensors: list[_Tensor] = []
        self._pairs = [
            self._pair(key, value, (types or {}).get(key))
            for key, value in metadata.items()
            if not OWN_KEYS.fullmatch(key)
        ]
        if alignment != DEFAULT_ALIGNMENT:
            self._pairs.append(self._pair("general.alignment", alignment, "uint32"))

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        type: str | int,
        chunks: Iterable[Chunk],
        *,
        n_bytes: int | None = None,
        package: str = "",
    ) -> None:
        """Declares a tensor; tensors are written in the order in which they are declared.

        Args:
            name: at most 63 bytes of UTF-8.
            shape: elements, in numpy's order: `(rows, columns)`.
            type: a format's name (as in `TensorInfo.type_name`) or GGUF id. What GGUF has no id for is stored as I8.
            chunks: the data, in pieces of any size, taken one by one in `write()`.
            n_bytes: length of the data; needed for a format that is not in `TENSOR_TYPES`.
            package: where the codec of a format without an id can be found.

        Raises:
            GGUFError: `n_bytes` is missing, or is not what shape and format give.
        """
        tensor = f"tensor {show(name)}"
        type_id = _type_id(type)
        known = TENSOR_TYPES.get(type_id) if type_id is not None else None
        size = known.n_bytes(prod(shape)) if known else n_bytes
        if size is None or size < 0:
            raise self._refuse(f"{tensor} in format {type!r} needs its length", "pass n_bytes")
        if n_bytes not in (None, size):
            raise self._refuse(f"{tensor} of shape {tuple(shape)} has {size} bytes in {type}, not {n_bytes}")
        declared = _Tensor(name, tuple(shape), type_id, str(type), size, package, chunks)
        try:
            declared.entry(0)
        except (error, UnicodeEncodeError) as wrong:
            raise self._refuse(f"{tensor} of shape {tuple(shape)} in {type} cannot be written: {wrong}") from None
        self._tensors.append(declared)

    def write(self) -> None:
        """Writes the file, once.

        Raises:
            GGUFError: the header breaks a rule of GGUF, or a tensor's chunks are not of the length declared.
            SourceError: the file cannot be written; the disk may be full.
        """
        sizes = [align_up(tensor.n_bytes, self.alignment) for tensor in self._tensors]
        offsets = list(accumulate(sizes, initial=0))
        header = self._header(offsets)
        total = len(header) + offsets[-1]
        with _replacing(self.path, total) as file:
            file.write(header)
            file.truncate(total)
            file.flush()
            self._check(Path(file.name))
            for tensor, offset in zip(self._tensors, offsets, strict=False):
                file.seek(len(header) + offset)
                self._stream(tensor, file)

    def _header(self, offsets: Sequence[int]) -> bytes:
        pairs = self._pairs + self._foreign_pairs()
        entries = [tensor.entry(offset) for tensor, offset in zip(self._tensors, offsets, strict=False)]
        header = MAGIC + pack("<IQQ", VERSION, len(entries), len(pairs)) + b"".join(pairs) + b"".join(entries)
        return header.ljust(align_up(len(header), self.alignment), b"\0")

    def _foreign_pairs(self) -> list[bytes]:
        tensors = [tensor for tensor in self._tensors if tensor.type_id is None]
        rows = [(t.name, t.type_name, t.package, ",".join(map(str, reversed(t.shape)))) for t in tensors]
        return [self._pair(key, texts, None) for key, texts in zip(foreign.KEYS, zip(*rows, strict=True), strict=False)]

    def _check(self, written: Path) -> None:
        """Reads our own header with the strict reader, before hours go into the tensors."""
        try:
            GGUFFile.open(written).close()
        except GGUFError as wrong:
            raise self._refuse(wrong.what) from None

    def _stream(self, tensor: _Tensor, file: BinaryIO) -> None:
        left = tensor.n_bytes
        for chunk in tensor.chunks:
            view = memoryview(cast("bytes", chunk))
            left -= view.nbytes
            if left < 0:
                break
            file.write(view if view.c_contiguous else view.tobytes())
        if left:
            found = "more" if left < 0 else f"{tensor.n_bytes - left}"
            raise self._refuse(
                f"tensor {show(tensor.name)} should have {tensor.n_bytes} bytes, but its chunks have {found}"
            )

    def _pair(self, key: str, value: Writable, type: str | None) -> bytes:
        try:
            return _string(key) + _encode(value, type or _infer(value))
        except (error, TypeError, ValueError, OverflowError, UnicodeEncodeError) as wrong:
            wanted = f" as {type}" if type else ""
            raise self._refuse(f"key {show(key)} cannot be written{wanted}: {wrong}") from None

    def _refuse(self, what: str, fix: str = "nothing was written: correct this and write again") -> GGUFError:
        return GGUFError(what, where=str(self.path), fix=fix)


@frozen
class _Tensor:
    """A declared tensor; `type_id` is None for a format that GGUF has no id for."""

    name: str
    shape: tuple[int, ...]
    type_id: int | None
    type_name: str
    n_bytes: int
    package: str
    chunks: Iterable[Chunk]

    def entry(self, offset: int) -> bytes:
        """The tensor's entry in the header."""
        dims = (self.shape if self.type_id is not None else self._stored_shape())[::-1]
        type_id = I8.id if self.type_id is None else self.type_id
        return _string(self.name) + pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id, offset)

    def _stored_shape(self) -> tuple[int, ...]:
        """The shape in bytes: row by row where every row has as many."""
        rows = prod(self.shape[:-1])
        return (*self.shape[:-1], self.n_bytes // rows) if rows and self.n_bytes % rows == 0 else (self.n_bytes,)


def _type_id(type: str | int) -> int | None:
    if isinstance(type, int):
        return type
    if type in TENSOR_TYPES_BY_NAME:
        return TENSOR_TYPES_BY_NAME[type].id
    unknown = _TYPE_ID.fullmatch(type)
    return int(unknown[1]) if unknown else None


def _infer(value: Any) -> str:
    """GGUF's type for a Python value."""
    if isinstance(value, Array):
        return f"array[{value.element_type}]"
    if hasattr(value, "dtype"):
        return f"array[{value.dtype.name}]" if value.ndim else str(value.dtype.name)
    if isinstance(value, (str, bytes, bool, int, float)):
        return _scalar_type([value], ("uint32", "int32", "uint64", "int64"))
    if not len(value):
        raise ValueError("an empty list has no type of its own: give it one in `types`")
    return f"array[{_scalar_type(value, ('int32', 'int64', 'uint64'))}]"


def _scalar_type(values: Sequence[Any], int_types: Sequence[str]) -> str:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return next((name for name in int_types if _fits(values, name)), int_types[-1])
    for allowed, name in (({bool}, "bool"), ({int, float}, "float32"), ({str, bytes}, "string")):
        if kinds <= allowed:
            return name
    raise TypeError(f"GGUF has no type for {' and '.join(sorted(kind.__name__ for kind in kinds))}")


def _fits(values: Sequence[int], name: str) -> bool:
    bits = int(name.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return low <= min(values) and max(values) < high


def _encode(value: Any, name: str) -> bytes:
    """The type's id and the value."""
    if not name.startswith("array["):
        type = _known(name)
        return pack("<I", type.id) + _scalar(value.item() if hasattr(value, "item") else value, type)
    type = _known(name[len("array[") : -1])
    if isinstance(value, Array) and value.element_type == type.name:
        body = value.encoded()
    else:
        body = b"".join(_scalar(element, type) for element in (value.tolist() if hasattr(value, "tolist") else value))
    return pack("<IIQ", ARRAY, type.id, len(value)) + body


def _known(name: str) -> ValueType:
    if name not in _VALUE_TYPES:
        raise TypeError(f"GGUF has no type {name!r}")
    return _VALUE_TYPES[name]


def _scalar(value: Any, type: ValueType) -> bytes:
    if type.layout is None:
        return _string(value)
    if (type.name == "bool") != isinstance(value, bool):
        raise TypeError(f"{value!r} is not of type {type.name}")
    return type.layout.pack(value)


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else bytes(memoryview(text))
    return U64.pack(len(raw)) + raw


@contextmanager
def _replacing(path: Path, n_bytes: int) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place in the end, or vanishes on any error."""
    temporary = path.with_name(f".sis-{secrets.token_hex(8)}.part")
    try:
        free = shutil.disk_usage(path.parent).free
        if n_bytes > free:
            raise SourceError(f"needs {n_bytes} bytes, but the disk has {free} left", where=str(path), fix="make room")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as failed:
        what, fix = f"cannot be written: {failed}", "check the disk's space and the directory's permissions"
        raise SourceError(what, where=str(path), fix=fix) from failed
