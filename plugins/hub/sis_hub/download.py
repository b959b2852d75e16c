"""One file from an address: what an earlier try left is taken up, and nothing unverified gets its name.

The bytes gather in ``TARGET.incomplete`` beside the target. They stay there when the connection, or the program, dies,
and the next try asks for the rest; they go when they are wrong or when the disk is full. The target appears when length
and hash are right. One process works on a target at a time; others wait and find it finished.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sis_core.errors import SourceError
from sis_core.source import Progress
from sis_hub.arriving import Arriving, WrongContentError
from sis_hub.remote import Patience, Remote
from sis_hub.transfer import fetch
from sis_hub.verify import file_hash

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def download(
    remote: Remote,
    target: Path,
    *,
    lock: Path | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> str:
    """Fetch ``remote`` over HTTP to ``target``; returns and raises what `receive` does."""
    return receive(
        remote, target, lambda arrived: fetch(remote, arrived, patience or Patience()), lock=lock, progress=progress
    )


def receive(
    remote: Remote,
    target: Path,
    fill: Callable[[Arriving], None],
    *,
    lock: Path | None = None,
    progress: Progress | None = None,
) -> str:
    """Let ``fill`` bring what is missing of ``target``, unless that is there.

    Returns:
        the SHA-256 of the file in hexadecimal.

    Raises:
        SourceError: it cannot be had, is not what it should be, or does not fit on the disk.
    """
    with _locked(lock or target.with_name(target.name + ".lock"), remote.name):
        if target.exists():
            return remote.sha256 or file_hash(target)
        partial = _partial(target, remote)
        try:
            check_space(target.parent, (remote.n_bytes or 0) - _size(partial), remote.name)
            with partial.open("r+b" if partial.exists() else "x+b") as file:
                arrived = Arriving(file, remote, progress)
                sha256 = _complete(arrived, fill, remote.name)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except WrongContentError as wrong:
            partial.unlink(missing_ok=True)
            raise SourceError(wrong.what, where=remote.name, fix=wrong.fix) from None
        except OSError as failed:
            if failed.errno in FULL:
                partial.unlink(missing_ok=True)  # nothing half-written stays on a full disk
                raise SourceError(
                    "the disk is full; what had arrived was removed", where=str(target.parent), fix="make room"
                ) from failed
            raise SourceError(
                f"cannot be written: {failed}", where=str(target), fix="check the folder's permissions"
            ) from failed
        return sha256


def _complete(arrived: Arriving, fill: Callable[[Arriving], None], name: str) -> str:
    """The SHA-256 of the whole; where it is wrong and an earlier try left a part of it, that is thrown away first."""
    try:
        fill(arrived)
        return arrived.check()
    except WrongContentError as wrong:
        if not arrived.resumed:
            raise
        log.warning("%s: what an earlier try left was damaged (%s); beginning anew", name, wrong.what)
        arrived.restart()
        fill(arrived)
        return arrived.check()


def check_space(folder: Path, n_bytes: int, name: str) -> None:
    """SourceError when the disk under ``folder`` (which need not exist yet) has no room for ``n_bytes``."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise SourceError(
            f"needs {n_bytes:,} bytes, and the disk of {there} has {free:,} free",
            where=name,
            fix="make room (`sis list` shows what is there, `sis rm` removes it), or put the cache elsewhere (HF_HOME)",
        )


def _partial(target: Path, remote: Remote) -> Path:
    """Where the bytes gather. Without a known hash they belong to one version of the file: others' are thrown away."""
    if remote.sha256 or remote.git_sha1:
        return target.with_name(f"{target.name}.incomplete")
    version = hashlib.sha256(remote.tag.encode()).hexdigest()[:8]
    partial = target.with_name(f"{target.name}.{version}.incomplete")
    for other in target.parent.glob(f"{glob.escape(target.name)}.*.incomplete"):
        if other != partial or not remote.tag:
            other.unlink()
    return partial


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock file, waiting for whoever has it; it is freed by the system when its holder dies."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, mode=0o664):
            yield
    except PermissionError as error:
        raise SourceError(f"cannot be written: {error}", where=name, fix="check the cache's permissions") from error
