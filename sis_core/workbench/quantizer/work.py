"""The folder beside the output in which a run is prepared, and from which a killed run goes on.

    plan.json   what is being made: inputs, formats and options. Another command does not take it up
    lock        the process that works here
    model.gguf  the output, allocated in full from the start: a full disk is found before hours of work, not after
    done        a line for each finished tensor: its number and the CRC-32 of its bytes

A tensor counts as finished only when its bytes in ``model.gguf`` have that CRC: what a crash of the machine tore is
made again. In the end ``model.gguf`` takes the output's name and the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from sis_core.errors import SourceError
from sis_core.gguf_file import GGUFFile

READ = 1 << 22


class WorkFolder:
    """A prepared output. Use it as a context manager: it holds the lock.

    Args:
        target: the output.
        key: everything that the bytes depend on; a folder with another key is emptied.

    Attributes:
        started_anew: the folder held another command's work, which is gone.

    Raises:
        SourceError: another process works here, or the folder cannot be made.
    """

    def __init__(self, target: Path, key: dict[str, Any]) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.sis-work")
        self.model, self._done, self._plan, self._lock = (
            self.path / name for name in ("model.gguf", "done", "plan.json", "lock")
        )
        self.started_anew = False
        text = json.dumps(key, sort_keys=True)
        try:
            self.path.mkdir(exist_ok=True)
            self._take_lock()
            for torn in self.path.glob(".sis-*.part"):  # a run that was killed while it allocated
                torn.unlink()
            if not self._plan.exists() or self._plan.read_text("utf-8") != text:
                self.started_anew = self._plan.exists()
                for old in (self._plan, self._done, self.model):
                    old.unlink(missing_ok=True)
                self._plan.write_text(text, "utf-8")
        except OSError as error:
            self.discard()
            raise SourceError(
                f"cannot be written: {error}", where=str(target), fix="check the disk's space and the permissions"
            ) from error

    def finished(self) -> dict[str, int]:
        """Tensors whose bytes are in place, with their CRC-32."""
        if not self.model.exists() or not self._done.exists():
            return {}
        claims: dict[str, int] = {}
        for line in self._done.read_text("utf-8").splitlines():
            crc, _, name = line.partition(" ")
            if crc.isdecimal() and name:
                claims[name] = int(crc)
        with GGUFFile.open(self.model) as file:
            return {n: crc for n, crc in claims.items() if n in file.tensors and _crc(file.raw(n)) == crc}

    def mark(self, name: str, crc: int) -> None:
        """Note that a tensor's bytes have been written."""
        with self._done.open("a", encoding="utf-8") as file:
            file.write(f"{crc} {name}\n")

    def publish(self) -> None:
        """Give the output its name and remove the folder."""
        os.replace(self.model, self.target)
        self.discard()

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After an error nothing stays; after an interruption the work does, without its lock."""
        if isinstance(error, Exception):
            self.discard()
        self._lock.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        me = f"{os.getpid()} {psutil.Process().create_time()}"
        for _ in range(2):
            try:
                with self._lock.open("x", encoding="ascii") as file:
                    file.write(me)
                return
            except FileExistsError:
                if owner := _alive(self._lock):
                    raise SourceError(
                        f"is being written by process {owner}", where=str(self.target), fix="wait for it, or end it"
                    ) from None
                self._lock.unlink(missing_ok=True)
        raise SourceError("is being written by another process", where=str(self.target), fix="wait for it")


def _alive(lock: Path) -> int | None:
    """The process that holds a lock, if it still runs."""
    try:
        pid, created = lock.read_text("ascii").split()
        same = abs(psutil.Process(int(pid)).create_time() - float(created)) < 1
    except (OSError, ValueError, psutil.Error):
        return None
    return int(pid) if same else None


def _crc(data: Any) -> int:
    crc = 0
    for part in _pieces(data):
        crc = zlib.crc32(part, crc)
    return crc


def _pieces(data: Any) -> Iterator[Any]:
    for start in range(0, len(data), READ):
        yield data[start : start + READ]
