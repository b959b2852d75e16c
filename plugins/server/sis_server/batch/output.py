"""The file of answers: whole lines in order, so that a run that was killed is gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from sis_core.closing import Closing
from sis_core.errors import SourceError
from sis_server.batch.counts import Counts
from sis_server.batch.lines import Line
from sis_server.batch.mending import Mending

OBJECT = "sis.batch"
LARGEST_HEADING = 1 << 16
REPAIR = "name another file, or move this one away"
GO_ON = "the same command goes on from here"
OPTIONS = {
    "kv_type": "--kv-type", "n_ctx": "--ctx", "context": "--context", "template": "--template", "cache": "--cache",
    "on_error": "--on-error", "degraded": "--on-error and --ignore-key", "prefer": "--prefer", "backend": "--backend",
}  # fmt: skip


class Output(Closing):
    """A file of answers that no other process writes meanwhile; a context manager.

    Its first line says what answers depend on beside the requests: they are gone on with only where that is the same.
    The lock is a file beside it, which stays; the system frees it when its holder ends, however that was.

    Attributes:
        begun: what the first line says; empty for a file that is new.
        n_done: answers that it has, after `begin`.
    """

    def __init__(self, path: Path) -> None:
        """Lock it, and read its first line.

        Raises:
            SourceError: another process writes it, it cannot be read or written, or it holds something else.
        """
        self._path = Path(os.path.realpath(path))
        self._lock = FileLock(self._path.with_name(f".{self._path.name}.lock"), timeout=0)
        self._file: Any = None
        self.n_done = 0
        try:
            self._lock.acquire()
        except Timeout:
            raise SourceError(
                "is being written by another process", where=str(path), fix="wait for it, or name another file"
            ) from None
        except OSError as error:
            raise self._refused("cannot be written", error) from None
        try:
            self.begun: Mapping[str, Any] = self._read_heading()
        except BaseException:
            self._lock.release()
            raise

    @property
    def n_ctx(self) -> int | None:
        """The context that it was begun with; None for a file that is new."""
        found = self.begun.get("n_ctx")
        return int(found) if isinstance(found, str) and found.isdecimal() and int(found) else None

    def begin(self, heading: Mapping[str, str]) -> None:
        """Open it for answers that depend on what ``heading`` says, and drop what a killed run left of its last line.

        Raises:
            SourceError: it cannot be written, or has answers that depend on something else.
        """
        if self.begun:
            self._check_heading(heading)
        self._open()
        if not self.begun:
            self._file.truncate(0)
            self._write(msgspec.json.encode({"object": OBJECT, **heading}) + b"\n")
            return
        with self._path.open("rb") as file:
            end = len(file.readline())
            for text in file:
                if text.endswith(b"\n"):
                    self.n_done, end = self.n_done + 1, end + len(text)
        self._file.truncate(end)

    def check(self, lines: Iterator[Line]) -> Counts:
        """Go past the requests that are answered, and count; SourceError where it answers others, or more."""
        counts = Counts()
        with self._path.open("rb") as file:
            file.readline()
            for text in file:
                line = next(lines, None)
                if line is None or not text.startswith(b'{"id":"batch_req_%s"' % line.digest[:32].encode()):
                    raise SourceError("holds answers to other requests", where=str(self._path), fix=REPAIR)
                try:
                    counts.add(text)
                except ValueError:
                    what = f"line {counts.by_status.total() + 2} is damaged"
                    raise SourceError(what, where=str(self._path), fix=REPAIR) from None
        return counts

    @contextmanager
    def mending(self, places: list[int]) -> Iterator[Callable[[bytes], None]]:
        """Give what writes other answers in these places, one after another; see `Mending`."""
        self._file.close()
        try:
            with Mending(self._path, places) as mending:
                yield mending.write
        finally:
            self._open()

    def write(self, answer: bytes) -> None:
        """One more answer; SourceError when the disk is full."""
        self._write(answer + b"\n")
        self.n_done += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._lock.release()

    def _open(self) -> None:
        try:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by close
        except OSError as error:
            raise self._refused("cannot be written", error) from None

    def _write(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            at = 0
            while at < len(data):  # most often one call to the system: a kill leaves a line or its beginning
                at += self._file.write(data[at:]) or 0
        except OSError as error:
            self._file.truncate(end)
            raise self._refused("cannot be written", error, GO_ON) from None

    def _read_heading(self) -> Mapping[str, Any]:
        try:
            with self._path.open("rb") as file:
                first = file.readline(LARGEST_HEADING)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._refused("cannot be read", error) from None
        if not first.endswith(b"\n") and _is_beginning(first):
            return {}
        try:
            there = msgspec.json.decode(first)
        except ValueError:
            there = None
        if not isinstance(there, dict) or there.get("object") != OBJECT or not first.endswith(b"\n"):
            raise SourceError("is no file of answers", where=str(self._path), fix=REPAIR)
        return there

    def _check_heading(self, heading: Mapping[str, str]) -> None:
        there = {key: value for key, value in self.begun.items() if key != "object"}
        for key in dict.fromkeys((*heading, *there)):
            was, now = there.get(key), heading.get(key)
            if was != now:
                fix = REPAIR
                if key == "instructions":
                    fix += "; SIS_ISA chooses an instruction set"
                elif key in OPTIONS:
                    fix = f"give {OPTIONS[key]} as it was given then, or {REPAIR}"
                what = f"was begun {_said(key, was)}, and this is {_said(key, now)}"
                raise SourceError(what, where=str(self._path), fix=fix)

    def _refused(self, what: str, error: OSError, fix: str = "") -> SourceError:
        return SourceError(f"{what}: {error.strerror}", where=str(self._path), fix=fix)


def _said(key: str, value: Any) -> str:
    return f"without {key}" if value is None else f"with {key} {str(value)[:80]!r}"


def _is_beginning(first: bytes) -> bool:
    """Whether these bytes are what a kill left of a heading."""
    return (b'{"object":"%s"' % OBJECT.encode()).startswith(first[:20])
