"""Whether a file still is what it was: its hash against the one that is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sis_core.errors import SourceError
from sis_core.source import Listing, Progress
from sis_hub.listing import HashedListing

CHUNK = 1 << 22


def file_hash(path: Path, kind: str = "sha256", progress: Progress | None = None) -> str:
    """A file's SHA-256 in hexadecimal, or its SHA-1 as a git blob (``kind="git"``)."""
    total, done = path.stat().st_size, 0
    digest = hashlib.sha1(b"blob %d\0" % total, usedforsecurity=False) if kind == "git" else hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return digest.hexdigest()


def check_hash(path: Path, wanted: str, *, where: str, fix: str, progress: Progress | None = None) -> None:
    """SourceError when the file's hash is not ``wanted`` (as in `HashedListing.hashes`) or it cannot be read."""
    kind, _, digest = wanted.rpartition(":")
    try:
        found = file_hash(path, kind or "sha256", progress)
    except OSError as error:
        raise SourceError(f"cannot be read: {error}", where=where, fix=fix) from None
    if found != digest:
        raise SourceError(f"is damaged: its hash is {found[:16]}…, not {digest[:16]}…", where=where, fix=fix)


def verify(listing: Listing, progress: Progress | None = None) -> bool:
    """Check every file of a model; False when no hash is known for some of them.

    Raises:
        SourceError: a file is damaged.
    """
    hashes, again = (listing.hashes, listing.again) if isinstance(listing, HashedListing) else ({}, "")
    fix = again or f"`sis rm {listing.name}` and `sis pull {listing.name}`"
    for path, wanted in hashes.items():
        if wanted:
            check_hash(path, wanted, where=f"{listing.name}: {path}", fix=fix, progress=progress)
    return bool(hashes) and all(hashes.values())
