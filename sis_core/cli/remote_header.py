"""The header of a model that is not here yet, read where it lies."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen

from sis_core.errors import SourceError
from sis_core.gguf_file import TensorInfo, Value
from sis_core.gguf_file.header import read_header
from sis_core.source import Source

ENDLESS = 2**62  # nobody says how long the file is: whether all of its tensors are in it is found when it is fetched
Read = Callable[[int, int], bytes | None]


@frozen
class RemoteHeader:
    """What `sis inspect` shows, of the first file alone where a model is split."""

    path: str
    paths: Sequence[str]
    version: int
    metadata: Mapping[str, Value]
    metadata_types: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]


def remote_header(reference: str, sources: Sequence[Source]) -> RemoteHeader | None:
    """The header of what ``reference`` names; None when no source can read parts of it.

    Raises:
        SourceError: it cannot be read.
        GGUFError: it is no GGUF file, or breaks its rules.
    """
    for read in _readers(reference, sources):
        if read(0, 1) is not None:
            header = read_header(io.BufferedReader(_Ranges(read, reference)), ENDLESS, reference)
            tensors = {info.name: info for info in header.tensors}
            return RemoteHeader(
                reference, (reference,), header.version, header.metadata, header.metadata_types, tensors
            )
    return None


def _readers(reference: str, sources: Sequence[Source]) -> list[Read]:
    name, colon, rest = reference.partition(":")
    named = [source for source in sources if source.name == name and colon]
    asked = [(source, rest) for source in named] or [(source, reference) for source in sources]
    return [partial(source.read, known) for source, known in asked]


class _Ranges(io.RawIOBase):
    """A file whose bytes are asked for as they are read."""

    def __init__(self, read: Read, where: str) -> None:
        super().__init__()
        self._read, self._where, self._at = read, where, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._read(self._at, len(buffer))
        if found is None:
            raise SourceError("can no longer be read in parts", where=self._where, fix="fetch the whole model")
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
