"""What has arrived of a file: the bytes in a partial file, and their hashes."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from sis_core.source import Progress
from sis_hub.remote import Remote

CHUNK = 1 << 20
SNIFF = 512


class WrongContentError(Exception):
    """What arrived is not the file; it must not be kept."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(what)


class Arriving:
    """A partial file and the hashes of what is in it.

    Attributes:
        resumed: whether what an earlier try left is part of it.
    """

    def __init__(self, file: BinaryIO, remote: Remote, progress: Progress | None) -> None:
        self._file, self._remote, self._progress = file, remote, progress
        self.total = remote.n_bytes
        self._start_hashes()
        while chunk := file.read(CHUNK):
            self._take(chunk)
        self.resumed = self.n_bytes > 0
        if self.total is not None and self.n_bytes > self.total:
            self.restart()

    def _start_hashes(self) -> None:
        self._sha256, self._git = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        self._git.update(b"blob %d\0" % (self.total or 0))
        self._front, self._sniffed, self.n_bytes = b"", False, 0

    def restart(self) -> None:
        """Forget what is there: the server sends the file from its beginning."""
        self._file.seek(0)
        self._file.truncate()
        self.resumed = False
        self._start_hashes()

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._take(chunk)
        self._sniff()
        if self._progress:
            self._progress(self.n_bytes, self.total or self.n_bytes)

    def _take(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._git.update(chunk)
        self.n_bytes += len(chunk)
        if len(self._front) < SNIFF:
            self._front += chunk[: SNIFF - len(self._front)]

    def _sniff(self) -> None:
        """Refuse a page or another format at its first bytes, not after gigabytes."""
        if not self._sniffed and len(self._front) >= min(SNIFF, self.total or SNIFF):
            self.check_front()
            self._sniffed = True

    def check_front(self) -> None:
        from sis_core.gguf_file.not_gguf import recognise

        if self._remote.gguf and (found := recognise(self._front, self.n_bytes)):
            raise WrongContentError(f"what the server sent is {found.what}", found.fix)

    def check(self) -> str:
        """The SHA-256, when length and hashes are what the listing says."""
        remote, found = self._remote, self._sha256.hexdigest()
        self.check_front()
        if remote.n_bytes is not None and self.n_bytes != remote.n_bytes:
            raise WrongContentError(
                f"{self.n_bytes} bytes arrived of {remote.n_bytes}", "try again: the server sent another file"
            )
        for wanted, had in ((remote.sha256, found), (remote.git_sha1, self._git.hexdigest())):
            if wanted and wanted != had:
                raise WrongContentError(
                    f"hash mismatch: {had[:16]}… arrived, and the listing says {wanted[:16]}…",
                    "nothing was kept: try again, and if it stays so do not trust this file or the proxy between",
                )
        return found
