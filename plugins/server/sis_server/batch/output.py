"""The file of answers: whole lines in order, so that a run that was killed is gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sis_core.closing import Closing
from sis_core.errors import SourceError
from sis_server.batch.lines import Line

OBJECT = "sis.batch"
LARGEST_HEADING = 1 << 16
REPAIR = "name another file, or move this one away"


class Output(Closing):
    """An open file of answers; a context manager.

    Its first line says what answers depend on beside the requests: they are gone on with only where that is the same.

    Attributes:
        n_done: answers that it has.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any]) -> None:
        """Open it, and drop what a killed run left of its last line.

        Raises:
            SourceError: it cannot be written, holds something else, or answers that depend on something else.
        """
        self._path, self._heading = path, {"object": OBJECT, **heading}
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close
        except OSError as error:
            raise SourceError(f"cannot be written: {error.strerror}", where=str(path)) from None
        try:
            self.n_done = self._resume()
        except BaseException:
            self._file.close()
            raise

    def check(self, lines: Iterator[Line]) -> None:
        """Go past the requests that are answered; SourceError where the file answers others, or more."""
        with self._path.open("rb") as file:
            file.readline()
            for text in file:
                line = next(lines, None)
                if line is None or not text.startswith(b'{"id":"batch_req_%s"' % line.digest[:32].encode()):
                    raise SourceError("holds answers to other requests", where=str(self._path), fix=REPAIR)

    def write(self, answer: bytes) -> None:
        """One more answer; SourceError when the disk is full."""
        self._write(answer + b"\n")
        self.n_done += 1

    def _write(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            at = 0
            while at < len(data):  # most often one call to the system: a kill leaves a line or its beginning
                at += self._file.write(data[at:]) or 0
        except OSError as error:
            self._file.truncate(end)
            raise SourceError(
                f"cannot be written: {error.strerror}", where=str(self._path), fix="the same command goes on from here"
            ) from None

    def _resume(self) -> int:
        with self._path.open("rb") as file:
            first = file.readline(LARGEST_HEADING)
            if not first.endswith(b"\n"):
                if first and not _is_beginning(first):
                    raise SourceError("is no file of answers", where=str(self._path), fix=REPAIR)
                self._file.truncate(0)
                self._write(msgspec.json.encode(self._heading) + b"\n")
                return 0
            self._check_heading(first)
            n, end = 0, file.tell()
            for text in file:
                if text.endswith(b"\n"):
                    n, end = n + 1, end + len(text)
        self._file.truncate(end)
        return n

    def _check_heading(self, first: bytes) -> None:
        try:
            there = msgspec.json.decode(first)
        except ValueError:
            there = None
        if not isinstance(there, dict) or there.get("object") != OBJECT:
            raise SourceError("is no file of answers", where=str(self._path), fix=REPAIR)
        for key, value in self._heading.items():
            if there.get(key) != value:
                raise SourceError(
                    f"was begun with {key} {str(there.get(key))[:80]!r}, and this is {str(value)[:80]!r}",
                    where=str(self._path),
                    fix=f"{REPAIR}; SIS_ISA chooses an instruction set" if key == "instructions" else REPAIR,
                )

    def close(self) -> None:
        self._file.close()


def _is_beginning(first: bytes) -> bool:
    """Whether these bytes are what a kill left of a heading."""
    return (b'{"object":"%s"' % OBJECT.encode()).startswith(first[:20])
