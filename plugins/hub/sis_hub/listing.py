"""A model that is here, with the hashes that its files must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from sis_core.errors import SisError
from sis_core.gguf_file import GGUFFile
from sis_core.source import Listing


@frozen
class HashedListing(Listing):
    """A `Listing` that can be verified.

    Attributes:
        hashes: what is known of each of its files, which may be nothing (""): a SHA-256 in hexadecimal, or ``git:``
            and the SHA-1 of a git blob.
        again: the commands that fetch it again where it is damaged; empty for those of sis.
    """

    hashes: Mapping[Path, str] = field(factory=dict, kw_only=True)
    again: str = field(default="", kw_only=True)


def listed(
    name: str, files: Sequence[Path], licence: str, hashes: Mapping[Path, str], again: str = ""
) -> HashedListing:
    """The listing of a model with these files, the first to be opened first.

    Args:
        licence: as its publisher names it; where that is empty, what the file itself says.
    """
    n_bytes = sum(path.stat().st_size for path in files if path.exists())
    hashes = {path: hashes.get(path, "") for path in files}
    return HashedListing(name, files[0], n_bytes, licence or _own_licence(files[0]), hashes=hashes, again=again)


def _own_licence(path: Path) -> str:
    """The licence in a GGUF file's header, or empty."""
    try:
        with GGUFFile.open(path) as file:
            found = file.metadata.get("general.license")
    except SisError:
        return ""
    return found if isinstance(found, str) else ""
