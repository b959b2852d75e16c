"""Files that were fetched from addresses without a listing: a folder for each address, with a note of what it holds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from attrs import frozen

from sis_hub.listing import HashedListing, listed

NOTE = "source.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@frozen
class Kept:
    """A folder of fetched files."""

    path: Path

    def place(self, key: str) -> Path:
        """The folder for an address; what tells two addresses apart must be in ``key``."""
        return self.path / hashlib.sha256(key.encode()).hexdigest()[:16]

    def note(self, folder: Path, address: str, sha256: Mapping[str, str]) -> None:
        """Write down where files came from (without secrets), and their hashes when they came."""
        note = folder / NOTE
        temporary = note.with_suffix(".tmp")
        temporary.write_text(json.dumps({"address": address, "sha256": sha256}, indent=1), "utf-8")
        temporary.replace(note)

    def list(self) -> Iterator[HashedListing]:
        """Everything that was noted."""
        for note in sorted(self.path.glob(f"*/{NOTE}")) if self.path.is_dir() else ():
            try:
                noted = json.loads(note.read_text("utf-8"))
                hashes = {note.parent / file_name(name): str(digest) for name, digest in noted["sha256"].items()}
                address = str(noted["address"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # torn: it is fetched again when asked for
            if hashes and all(path.is_file() for path in hashes):
                yield listed(address, list(hashes), "", hashes)

    def remove(self, address: str) -> bool:
        """Remove what came from an address; False when nothing did."""
        found = [listing for listing in self.list() if listing.name == address]
        for listing in found:
            folder = listing.path.parent
            for path in (*listing.hashes, *(path.with_name(f"{path.name}.lock") for path in listing.hashes)):
                path.unlink(missing_ok=True)
            (folder / NOTE).unlink()
            folder.rmdir()
        return bool(found)


def file_name(path: str) -> str:
    """A safe name for a GGUF file from the end of a stranger's path."""
    name = _UNSAFE.sub("_", PurePosixPath(path).name).lstrip(".") or "model.gguf"
    return name[-200:] if name.lower().endswith(".gguf") else f"{name[-190:]}.gguf"
