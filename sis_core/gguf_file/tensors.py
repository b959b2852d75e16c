"""What a file says about its tensors, and the check that what it says can be true."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from struct import Struct
from typing import NamedTuple

from attrs import frozen

from sis_core.errors import GGUFError
from sis_core.gguf_file.cursor import CUT_SHORT, DAMAGED, Cursor, show
from sis_core.gguf_file.tables import (
    MAX_COUNT,
    MAX_DIMS,
    MAX_ELEMENTS_PER_BYTE,
    MAX_NAME_BYTES,
    REMOVED_TYPES,
    TENSOR_TYPES,
    align_up,
)

_REST = [Struct(f"<{n_dims}QIQ") for n_dims in range(MAX_DIMS + 1)]  # of an entry, after its number of dimensions


@frozen
class TensorInfo:
    """Where a tensor lies and how it is stored.

    Attributes:
        name: the tensor's name.
        shape: elements, in numpy's order: `(rows, columns)`, the reverse of GGUF's; `()` is a scalar.
        type_id: GGUF's id of the format; None for a format that GGUF has no id for.
        type_name: the format's name ("Q4_0"); "type 99" for an id we do not know.
        offset: of the first byte in its own file.
        n_bytes: bytes of data. Exact where `known` is true or `type_id` is None; otherwise all bytes up to the next
            tensor, with any padding.
        shard: index of its file in `GGUFFile.paths`.
        known: whether `n_bytes` follows from shape and format by this reader's own table.
        package: where a format without an id says its codec can be found. Untrusted text: show it, never install it.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int | None
    type_name: str
    offset: int
    n_bytes: int
    shard: int = 0
    known: bool = True
    package: str = ""


class Entry(NamedTuple):
    """A tensor as the header states it: `dims` in GGUF's order, `offset` from the start of the tensor data."""

    name: str
    dims: tuple[int, ...]
    type_id: int
    offset: int
    n_bytes: int  #: 0 when the type is unknown


def read_entry(cursor: Cursor, index: int) -> Entry:
    """Reads and checks one tensor's entry in the header.

    Raises:
        GGUFError: no tensor can be like that.
    """
    name = cursor.text(f"the name of tensor {index}", MAX_NAME_BYTES)
    tensor = f"tensor {show(name)}"
    if not name or "\0" in name:
        raise cursor.refuse(f"tensor {index} has " + (f"a NUL in its name {show(name)}" if name else "no name"))
    n_dims = cursor.u32(f"the number of dimensions of {tensor}")
    if n_dims > MAX_DIMS:
        raise cursor.refuse(f"{tensor} has {n_dims} dimensions; at most {MAX_DIMS} are allowed")
    rest = _REST[n_dims]
    *sizes, type_id, offset = rest.unpack(cursor.take(rest.size, f"the dimensions, type and offset of {tensor}"))
    dims = tuple(sizes)
    _check_dims(cursor, tensor, dims)
    return Entry(name, dims, type_id, offset, _size(cursor, tensor, dims, type_id))


def _check_dims(cursor: Cursor, tensor: str, dims: tuple[int, ...]) -> None:
    for i, n in enumerate(dims):
        if not 0 < n <= MAX_COUNT:
            raise cursor.refuse(f"{tensor} has {n} elements in dimension {i}; it must be 1 to 2**63 - 1")
    if prod(dims) > MAX_COUNT:
        raise cursor.refuse(f"{tensor} with dimensions {dims} has {prod(dims)} elements, more than 2**63 - 1")


def _size(cursor: Cursor, tensor: str, dims: tuple[int, ...], type_id: int) -> int:
    if type_id in REMOVED_TYPES:
        name, successor = REMOVED_TYPES[type_id]
        raise cursor.refuse(
            f"{tensor} has type {type_id} ({name}), which ggml has removed",
            f"quantise the model again from the original weights, as {successor}",
        )
    if type_id not in TENSOR_TYPES:
        return 0
    type = TENSOR_TYPES[type_id]
    row = dims[0] if dims else 1
    if row % type.block_size:
        raise cursor.refuse(
            f"{tensor} has rows of {row} elements, but {type.name} needs a multiple of {type.block_size}"
        )
    return type.n_bytes(prod(dims))


def place(cursor: Cursor, entries: Sequence[Entry], alignment: int) -> tuple[TensorInfo, ...]:
    """Gives each tensor its place in the file, in the header's order. `cursor` stands at the header's end.

    Tensors may stand in any order and leave gaps; they may not overlap or leave the file.

    Raises:
        GGUFError: a tensor is misaligned, lies outside the file or overlaps another.
    """
    start = align_up(cursor.pos, alignment)
    held = cursor.size - start
    if entries and held <= 0:
        what = f"tensor data begin at byte {start} by the alignment {alignment}, but the file ends at {cursor.size}"
        raise cursor.refuse(what, CUT_SHORT)
    for entry in entries:
        _check_place(cursor, entry, held, alignment)
    ends = {}
    by_offset = sorted(entries, key=lambda entry: entry.offset)
    for entry, following in pairwise(by_offset):
        ends[entry.name] = following.offset
        if entry.offset == following.offset or entry.offset + entry.n_bytes > following.offset:
            raise cursor.refuse(
                f"tensor {show(following.name)} at offset {following.offset} overlaps tensor {show(entry.name)}, "
                f"which has bytes {entry.offset} to {entry.offset + max(entry.n_bytes, 1)}"
            )
    return tuple(_info(cursor, entry, start, ends.get(entry.name, held)) for entry in entries)


def _check_place(cursor: Cursor, entry: Entry, held: int, alignment: int) -> None:
    tensor = f"tensor {show(entry.name)}"
    if entry.offset % alignment:
        raise cursor.refuse(f"{tensor} has offset {entry.offset}, not a multiple of the alignment {alignment}")
    end = entry.offset + max(entry.n_bytes, 1)
    if end > held:
        raise cursor.refuse(
            f"{tensor} needs bytes {entry.offset} to {end} of the tensor data, of which the file holds {held}",
            CUT_SHORT,
        )


def _info(cursor: Cursor, entry: Entry, start: int, end: int) -> TensorInfo:
    shape, offset = entry.dims[::-1], start + entry.offset
    if known := TENSOR_TYPES.get(entry.type_id):
        return TensorInfo(entry.name, shape, entry.type_id, known.name, offset, entry.n_bytes)
    n_bytes = end - entry.offset
    check_density(cursor.where, entry.name, shape, n_bytes)
    return TensorInfo(entry.name, shape, entry.type_id, f"type {entry.type_id}", offset, n_bytes, known=False)


def check_density(where: str, name: str, shape: tuple[int, ...], n_bytes: int) -> None:
    """Refuses a shape that no format could hold in `n_bytes`, so that decoding cannot exhaust the memory.

    Raises:
        GGUFError: there are more than 64 elements a byte.
    """
    if prod(shape) > n_bytes * MAX_ELEMENTS_PER_BYTE:
        what = f"tensor {show(name)} claims {prod(shape)} elements in {n_bytes} bytes"
        raise GGUFError(what, where=where, fix=DAMAGED)
