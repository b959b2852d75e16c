"""The header of a safetensors file, checked whole before a byte of a tensor is touched.

The format: a little-endian uint64, that many bytes of JSON, then the tensors' bytes without gaps or overlaps
(https://github.com/huggingface/safetensors, "Format"). Nothing in such a file can run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from attrs import frozen

from sis_core.arrays import U8
from sis_core.errors import SourceError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_DIMS = 8
PREFIX = 8
METADATA = "__metadata__"

#: Bytes of a value, by the name of its type.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

_DAMAGED = "the file is damaged or was cut short: download it again"


@frozen
class Entry:
    """A tensor: its type, its shape in numpy's order, and where in the file its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


class SafetensorsFile:
    """A file whose header was found to be sound. Immutable.

    Attributes:
        tensors: by name, in the order of their bytes.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the header.

        Raises:
            SourceError: the file cannot be read, or breaks a rule of the format.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                self._seen = stat.st_size, stat.st_mtime_ns
                header = self._header_bytes(file.read(PREFIX), stat.st_size)
                self._data_start = PREFIX + header
                entries = self._entries(self._parse(file.read(header)), stat.st_size)
        except OSError as error:
            raise SourceError(f"cannot be read: {error}", where=str(path), fix="check the path and the disk") from None
        self.tensors: Mapping[str, Entry] = {entry.name: entry for entry in entries}

    def raw(self, name: str) -> U8:
        """A copy of a tensor's bytes ``(n_bytes,)``. Read, not mapped: a file that shrinks meanwhile ends no program.

        Raises:
            SourceError: the file changed since its header was read.
        """
        entry = self.tensors[name]
        data = np.empty(entry.n_bytes, np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(entry.start)
                done = 0
                while done < entry.n_bytes and (n := file.readinto(data.data[done:])):
                    done += n
        except OSError as error:
            raise SourceError(f"cannot be read: {error}", where=str(self.path), fix="check the disk") from None
        self.check_unchanged()
        if done < entry.n_bytes:
            self._refuse("ended while it was read", "start again once nothing writes to it")
        return data

    def check_unchanged(self) -> None:
        """SourceError when the file changed since its header was read."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise SourceError(f"is gone: {error}", where=str(self.path), fix="start again") from None
        if (stat.st_size, stat.st_mtime_ns) != self._seen:
            self._refuse("changed while it was read", "start again once nothing writes to it")

    def _header_bytes(self, prefix: bytes, size: int) -> int:
        if len(prefix) < PREFIX:
            self._refuse(f"has only {size} bytes, too few for a header")
        n = int.from_bytes(prefix, "little")
        if n > MAX_HEADER_BYTES:
            self._refuse(f"states a header of {n} bytes; at most {MAX_HEADER_BYTES} are allowed")
        if n > size - PREFIX:
            self._refuse(f"states a header of {n} bytes, but the file ends after {size - PREFIX}")
        return n

    def _parse(self, header: bytes) -> dict[str, Any]:
        if not header.startswith(b"{"):
            self._refuse(f"has a header that starts with {header[:8]!r}, not with a brace")
        try:
            text = header.decode("utf-8")
        except UnicodeDecodeError as error:
            self._refuse(f"has a header that is not UTF-8 at its byte {error.start}")
        try:
            found = json.loads(text, object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            self._refuse(f"has a header that is not JSON: {error}")
        if not isinstance(found, dict):
            self._refuse("has a header that is not a JSON object")
        return found

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._refuse(f"names {twice[:80]!r} twice in its header")
        return found

    def _entries(self, header: Mapping[str, Any], size: int) -> list[Entry]:
        entries = [self._entry(name, value) for name, value in header.items() if name != METADATA]
        entries.sort(key=lambda entry: (entry.start, entry.n_bytes))
        for before, after in pairwise(entries):
            self._check_neighbours(before, before.start + before.n_bytes, after.name, after.start)
        if entries and entries[0].start != self._data_start:
            self._refuse(f"has a hole before tensor {entries[0].name!r}")
        end = entries[-1].start + entries[-1].n_bytes if entries else self._data_start
        if end > size:
            self._refuse(f"has tensors up to byte {end}, but ends at {size}")
        if end < size:
            self._refuse(f"has {size - end} bytes after the last tensor")
        return entries

    def _check_neighbours(self, before: Entry, end: int, name: str, start: int) -> None:
        if start < end:
            self._refuse(f"has tensors that overlap: {before.name!r} and {name!r}")
        if start > end:
            self._refuse(f"has a hole of {start - end} bytes between tensors {before.name!r} and {name!r}")

    def _entry(self, name: str, value: Any) -> Entry:
        tensor = f"tensor {name[:80]!r}"
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            self._refuse(f"has {tensor} without just a dtype, a shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            self._refuse(f"has {tensor} of an unknown dtype {str(dtype)[:40]!r}")
        if not _are_counts(shape) or len(shape) > MAX_DIMS:
            self._refuse(f"has {tensor} with a shape that is not a list of at most {MAX_DIMS} sizes")
        if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            self._refuse(f"has {tensor} with data_offsets that are not a begin and an end")
        n_values = prod(shape)
        if n_values >= 2**63:
            self._refuse(f"has {tensor} of {n_values} values, more than 2**63 - 1")
        start, n_bytes = offsets[0], offsets[1] - offsets[0]
        if n_values * ITEM_BYTES[dtype] != n_bytes:
            self._refuse(f"has {tensor} of shape {tuple(shape)} in {dtype}, which does not take {n_bytes} bytes")
        if not n_bytes:  # it would share its place with the next one
            self._refuse(f"has {tensor} of shape {tuple(shape)}, without a value")
        return Entry(name, dtype, tuple(shape), self._data_start + start, n_bytes)

    def _refuse(self, what: str, fix: str = _DAMAGED) -> NoReturn:
        raise SourceError(f"this safetensors file {what}", where=str(self.path), fix=fix)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
