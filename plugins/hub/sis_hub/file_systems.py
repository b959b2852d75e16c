"""The source ``fsspec``: files in places that fsspec and its plugins reach, as ``s3://…``, ``zip://…`` or ``sftp://…``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sis_core.errors import SisError, SourceError
from sis_core.source import Progress, Source
from sis_hub.arriving import CHUNK, Arriving, WrongContentError
from sis_hub.download import receive
from sis_hub.folders import cache_folder
from sis_hub.kept import Kept, file_name
from sis_hub.listing import HashedListing
from sis_hub.remote import Remote

OTHERS = ("hf", "https", "http", "pkg", "ollama", "file", "local")  # protocols that have a source of their own
_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class FileSystemSource(Source):
    """An address that fsspec understands, chained ones included: ``zip://model.gguf::s3://bucket/models.zip``.

    Args:
        folder: where files are kept; by default ``fsspec`` in sis's cache.
    """

    name = "fsspec"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The file, copied here unless it is here and unchanged.

        Raises:
            SourceError: it cannot be had or is no GGUF file; a package for the protocol is missing.
        """
        if not _is_ours(reference):
            return None
        with _errors(reference):
            system, path = _open(reference)
            size, version = system.info(path).get("size"), system.ukey(path)
        name, folder = file_name(path), self._kept.place(f"{reference}\0{version}")
        target = folder / name
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            remote = Remote(reference, _shown(reference), None if size is None else int(size), gguf=True)

            def copy(arrived: Arriving) -> None:
                with _errors(reference), system.open(path, "rb") as file:
                    file.seek(arrived.n_bytes)
                    while chunk := file.read(CHUNK):
                        arrived.write(chunk)

            sha256 = receive(remote, target, copy, progress=progress)
            self._kept.note(folder, remote.name, {name: sha256})
        return target

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """``n`` bytes from ``start`` on, or fewer at the end, without copying the rest."""
        if not _is_ours(reference):
            return None
        with _errors(reference):
            system, path = _open(reference)
            with system.open(path, "rb") as file:
                file.seek(start)
                return bytes(file.read(n))

    def list(self) -> Iterator[HashedListing]:
        """What was copied here."""
        return self._kept.list()

    def remove(self, name: str) -> bool:
        """Remove what was copied from an address."""
        return _is_ours(name) and self._kept.remove(_shown(name))

    @property
    def _kept(self) -> Kept:
        return Kept(self._folder or cache_folder() / "fsspec")


def _is_ours(reference: str) -> bool:
    """Whether it is an address with a protocol of fsspec's. Plain names are told apart without importing it."""
    protocol = _PROTOCOL.match(reference)
    if not protocol or protocol[1].lower() in OTHERS:
        return False
    from fsspec import available_protocols

    return protocol[1].lower() in available_protocols()


def _open(reference: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(reference)
    return system, str(path)


@contextmanager
def _errors(reference: str) -> Iterator[None]:
    """A stranger's exceptions as ours, without what may be a password."""
    where = _shown(reference)
    try:
        yield
    except (SisError, WrongContentError, KeyboardInterrupt, MemoryError):
        raise
    except ImportError as error:
        raise SourceError(f"needs another package: {error}", where=where, fix="install it") from None
    except FileNotFoundError:
        raise SourceError("no such file", where=where, fix="check the address") from None
    except Exception as error:
        what = str(error).replace(reference, where) or type(error).__name__
        raise SourceError(f"cannot be read: {what}", where=where, fix="check the address and the log-in") from None


def _shown(reference: str) -> str:
    """The address without a name and password, or a query."""
    return re.sub(r"(?<=://)[^/@:]*(:[^/@]*)?@", "", reference).partition("?")[0]
