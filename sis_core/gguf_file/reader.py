"""`GGUFFile`: a model's metadata and tensors, from one file or from all of its parts."""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import finalize, ref

from sis_core.closing import Closing
from sis_core.errors import ClosedError, GGUFError, MemoryLimitError, SourceError
from sis_core.gguf_file import foreign, shards
from sis_core.gguf_file.arrays import Value
from sis_core.gguf_file.cursor import show
from sis_core.gguf_file.header import Header, read_header
from sis_core.gguf_file.tensors import TensorInfo
from sis_core.machine.lock import Lock

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

_NOT_FILES = (
    (stat.S_ISDIR, "a directory", "give the .gguf file inside it"),
    (stat.S_ISFIFO, "a pipe", "save what comes out of it to a file first: a model is read out of order"),
    (stat.S_ISSOCK, "a socket", "give a .gguf file"),
    (stat.S_ISCHR, "a device", "give a .gguf file"),
    (stat.S_ISBLK, "a device", "give a .gguf file"),
)


class GGUFFile(Closing):
    """An open GGUF model, immutable and thread-safe.

    Attributes:
        path: the file that was opened.
        paths: it and, for a split model, the other parts.
        version: of GGUF: 2 or 3.
        alignment: of tensors in the first file, in bytes.
        metadata: keys and values, in file order. An array is an `Array`, read when asked for.
        metadata_types: GGUF's type of each value: "uint32", "string", "array[float32]" …
        tensors: by name, in file order.
    """

    def __init__(self, parts: tuple[_Part, ...], tensors: Mapping[str, TensorInfo]) -> None:
        first = parts[0].header
        self.path = parts[0].path
        self.paths = tuple(part.path for part in parts)
        self.version, self.alignment = first.version, first.alignment
        self.metadata: Mapping[str, Value] = MappingProxyType(dict(first.metadata))
        self.metadata_types: Mapping[str, str] = MappingProxyType(dict(first.metadata_types))
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(dict(tensors))
        self._parts = parts
        self._lock = Lock()  # close() in one thread, raw() in another
        self._closed = False

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GGUFFile:
        """Opens a model: one file, or the first part of a split one, whose other parts are opened too.

        Raises:
            SourceError: there is no file, or it cannot be read.
            GGUFError: the file is not GGUF, or breaks its rules.
        """
        first = _Part(Path(path))
        parts = [first]
        try:
            parts += map(_Part, shards.shard_paths(first.path, first.header.metadata)[1:])
            tensors = shards.merge([part.path for part in parts], [part.header for part in parts])
            return cls(tuple(parts), foreign.resolve(tensors, first.header.metadata, str(first.path)))
        except BaseException:
            for part in parts:
                part.close()
            raise

    def raw(self, name: str) -> NDArray[uint8]:
        """A tensor's bytes: `(n_bytes,)`, a read-only view into the file, which is mapped as long as there are views.

        Raises:
            KeyError: there is no such tensor.
            SourceError: the system cannot map the file.
            GGUFError: the file has changed since it was opened; reading on would give wrong weights or kill Python.
            ClosedError: the file is closed.
        """
        import numpy as np

        info = self.tensors[name]
        with self._lock:
            return np.frombuffer(self._open_part(info).map(), np.uint8, info.n_bytes, info.offset)

    def copy(self, name: str, start: int, stop: int) -> NDArray[uint8]:
        """A copy of bytes `start:stop` of a tensor: safe to read whatever becomes of the file meanwhile.

        Raises what `raw` does.
        """
        info = self.tensors[name]
        with self._lock:
            part = self._open_part(info)
        return part.copy(info.offset + start, stop - start)

    def checker(self, name: str) -> Callable[[], None]:
        """What says whether the file of a tensor is still what it was: equal for tensors of one file, and quick.

        It raises what `raw` does.
        """
        return self._parts[self.tensors[name].shard].check_unchanged

    def release(self, name: str) -> None:
        """Tells the system that a tensor's pages are not needed for now. Views stay valid and read them again.

        Raises:
            KeyError: there is no such tensor.
            ClosedError: the file is closed.
        """
        info = self.tensors[name]
        start = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (info.offset + info.n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        with self._lock:
            mapped = self._open_part(info).mapped()
            if mapped is not None and end > start and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Closes the file; again is fine. Views that are still held keep the mapping until they are gone."""
        with self._lock:
            self._closed = True
            for part in self._parts:
                part.close()

    def _open_part(self, info: TensorInfo) -> _Part:
        if self._closed:
            raise ClosedError(f"tensor {show(info.name)} was asked for after close()", where=str(self.path))
        return self._parts[info.shard]

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<GGUFFile {self.path.name}: {len(self.metadata)} keys, {len(self.tensors)} tensors{state}>"


class _Part:
    """One file: its header, its mapping while views hold it, and what it looked like when it was opened."""

    header: Header

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = _open_regular(path)
        self._close_fd = finalize(self, os.close, self._fd)
        self.mapped: Callable[[], mmap.mmap | None] = lambda: None
        try:
            self._seen = self._look()
            with io.FileIO(self._fd, closefd=False) as file:
                self.header = read_header(file, self._seen[0], str(path))
            self.check_unchanged()
        except OSError as error:
            self._close_fd()
            raise SourceError(f"cannot be read: {error}", where=str(path), fix="check the disk and the path") from error
        except BaseException:
            self._close_fd()
            raise

    def _look(self) -> tuple[int, int]:
        seen = os.fstat(self._fd)
        return seen.st_size, seen.st_mtime_ns

    def check_unchanged(self) -> None:
        if not self._close_fd.alive:
            raise ClosedError("its weights were asked for after close()", where=str(self.path))
        now = self._look()
        if now == self._seen:
            return
        what = f"shrank or grew from {self._seen[0]} to {now[0]} bytes" if now[0] != self._seen[0] else "was rewritten"
        raise GGUFError(
            f"the file {what} after it was opened, so its tensors can no longer be read",
            where=str(self.path),
            fix="open the model again once nothing writes to the file",
        )

    def map(self) -> mmap.mmap:
        """The mapping that views share; it goes when the last of them goes."""
        self.check_unchanged()  # mmap refuses a file that has shrunk with a riddle
        mapped = self.mapped()
        if mapped is None:
            try:
                mapped = mmap.mmap(self._fd, self._seen[0], access=mmap.ACCESS_READ)
            except OSError as error:
                what = f"cannot be mapped: {error}"
                if error.errno == errno.ENOMEM:
                    raise MemoryLimitError(
                        what, where=str(self.path), fix="raise `ulimit -v`, or use a smaller file"
                    ) from None
                raise SourceError(what, where=str(self.path), fix="check the disk and free memory") from error
            self.mapped = ref(mapped)
        return mapped

    def copy(self, offset: int, n_bytes: int) -> NDArray[uint8]:
        """Bytes read, not mapped, where the system can; else the mapping is one that nobody can cut."""
        import numpy as np

        if not hasattr(os, "preadv"):
            return np.frombuffer(self.map(), np.uint8, n_bytes, offset).copy()
        self.check_unchanged()
        buffer = np.empty(n_bytes, np.uint8)
        done = 0
        while done < n_bytes:
            try:
                n = os.preadv(self._fd, [buffer.data[done:]], offset + done)
            except OSError as error:
                raise SourceError(f"cannot be read: {error}", where=str(self.path), fix="check the disk") from error
            if n == 0:
                self.check_unchanged()
                raise GGUFError("ends before its tensors do", where=str(self.path), fix="open the model again")
            done += n
        return buffer

    def close(self) -> None:
        self._close_fd()


def _open_regular(path: Path) -> int:
    """A descriptor of the regular file at `path`; never waits for a pipe or wakes a device."""
    where = str(path)
    try:
        mode = path.stat().st_mode
        for is_kind, kind, fix in _NOT_FILES:
            if is_kind(mode):
                raise SourceError(f"this is {kind}, not a file", where=where, fix=fix)
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise SourceError("no such file", where=where, fix="check the path") from None
    except PermissionError:
        raise SourceError("may not be read by this user", where=where, fix="change its permissions") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be opened: {error}", where=where, fix="check the path") from None
