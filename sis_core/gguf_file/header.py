"""Bytes to header: metadata and tensors of one file, checked whole before anything is mapped or allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from sis_core.gguf_file.arrays import Array, Value
from sis_core.gguf_file.cursor import CUT_SHORT, Cursor, show
from sis_core.gguf_file.not_gguf import SNIFF_BYTES, recognise
from sis_core.gguf_file.tables import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAX_KEY_BYTES,
    MIN_ALIGNMENT,
    VALUE_TYPES,
    VERSIONS,
    is_alignment,
)
from sis_core.gguf_file.tensors import TensorInfo, place, read_entry

_MIN_PAIR = 8 + 1 + 4 + 1  # a one-letter key with a bool
_MIN_ENTRY = 8 + 1 + 4 + 4 + 8  # a one-letter scalar


class Header(NamedTuple):
    """All that one file says about itself."""

    version: int
    alignment: int
    metadata: Mapping[str, Value]
    metadata_types: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]


def read_header(file: BinaryIO, size: int, where: str) -> Header:
    """Reads the header of a GGUF file of `size` bytes; `file` stands at its start.

    Raises:
        GGUFError: it is no GGUF file, or breaks a rule of GGUF.
    """
    cursor = Cursor(file, size, where)
    version, n_tensors, n_pairs = _front(cursor)
    metadata: dict[str, Value] = {}
    types: dict[str, str] = {}
    for i in range(n_pairs):
        key = _key(cursor, i, metadata)
        types[key], metadata[key] = _value(cursor, f"key {show(key)}")
    alignment = _alignment(cursor, metadata, types)
    entries = [read_entry(cursor, i) for i in range(n_tensors)]
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise cursor.refuse(f"two tensors are named {show(entry.name)}")
        names.add(entry.name)
    tensors = place(cursor, entries, alignment)
    header = bytes(cursor.data[: cursor.pos])
    cursor.data.clear()  # the arrays keep these bytes: let them keep no more, which only an empty bytearray sees to
    cursor.data += header
    return Header(version, alignment, metadata, types, tensors)


def _front(cursor: Cursor) -> tuple[int, int, int]:
    cursor.need(min(cursor.size, SNIFF_BYTES), "the file")
    if finding := recognise(bytes(cursor.data[:SNIFF_BYTES]), cursor.size):
        raise cursor.refuse(f"this is {finding.what}", finding.fix)
    cursor.take(4, "the magic")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        raise cursor.refuse(
            f"this is GGUF version {version}; sis reads versions 2 and 3",
            "a newer sis may read it" if version > max(VERSIONS) else "the file is damaged: download it again",
        )
    n_tensors, n_pairs = cursor.u64("the number of tensors"), cursor.u64("the number of metadata keys")
    left = cursor.size - cursor.pos
    for n, least, kind in ((n_tensors, _MIN_ENTRY, "tensors"), (n_pairs, _MIN_PAIR, "metadata keys")):
        if n * least > left:
            raise cursor.refuse(
                f"the header counts {n} {kind}, which cannot fit into the {left} bytes after it", CUT_SHORT
            )
    return version, n_tensors, n_pairs


def _key(cursor: Cursor, index: int, seen: Mapping[str, Value]) -> str:
    key = cursor.text(f"the name of key {index}", MAX_KEY_BYTES)
    if not key or "\0" in key:
        raise cursor.refuse(f"key {index} has " + (f"a NUL in its name {show(key)}" if key else "an empty name"))
    if key in seen:
        raise cursor.refuse(f"key {show(key)} stands twice in the metadata")
    return key


def _value(cursor: Cursor, key: str) -> tuple[str, Value]:
    type_id = cursor.u32(f"the type of {key}")
    if type_id == ARRAY:
        array = _array(cursor, key)
        return f"array[{array.element_type}]", array
    if type_id not in VALUE_TYPES:
        raise cursor.refuse(f"{key} has value type {type_id}; GGUF has 0 to {max(VALUE_TYPES)}")
    type = VALUE_TYPES[type_id]
    if type.layout is None:
        return type.name, cursor.text(f"the value of {key}")
    raw = cursor.take(type.layout.size, f"the value of {key}")
    if type_id == BOOL:
        _check_bools(cursor, raw, key)
    value: Value = type.layout.unpack(raw)[0]
    return type.name, value


def _array(cursor: Cursor, key: str) -> Array:
    type_id, n = cursor.u32(f"the element type of {key}"), cursor.u64(f"the length of {key}")
    where = f"{cursor.where}: {key}"
    if type_id == ARRAY:
        raise cursor.refuse(f"{key} is an array of arrays, which no GGUF key uses and sis does not read")
    if type_id not in VALUE_TYPES:
        raise cursor.refuse(f"{key} is an array of value type {type_id}; GGUF has 0 to {max(VALUE_TYPES)}")
    type, start = VALUE_TYPES[type_id], cursor.pos
    what = f"{key}, an array[{type.name}] of {n} elements,"
    if type.layout is None:
        return Array.of_strings(cursor.data, cursor.string_offsets(n, what), type, where)
    cursor.need(n * type.layout.size, what)
    cursor.pos += n * type.layout.size
    if type_id == BOOL:
        _check_bools(cursor, cursor.data[start : cursor.pos], key)
    return Array(cursor.data, start, n, type, where)


def _check_bools(cursor: Cursor, raw: bytes | bytearray, key: str) -> None:
    if wrong := raw.translate(None, b"\0\1"):
        raise cursor.refuse(f"{key} has a bool that is {wrong[0]}; it must be 0 or 1")


def _alignment(cursor: Cursor, metadata: Mapping[str, Value], types: Mapping[str, str]) -> int:
    key = "general.alignment"
    if key not in metadata:
        return DEFAULT_ALIGNMENT
    alignment = metadata[key]
    if types[key] != "uint32" or not isinstance(alignment, int):
        raise cursor.refuse(f"key {key!r} must be a uint32 but is {types[key]}")
    if not is_alignment(alignment):
        raise cursor.refuse(f"key {key!r} is {alignment}; it must be a power of 2 of at least {MIN_ALIGNMENT}")
    return alignment
