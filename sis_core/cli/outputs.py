"""Files that a command writes in the end are refused at its beginning, where they cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from sis_core.errors import SourceError


def check_output(path: Path | None, *, force: bool = True) -> None:
    """SourceError for a file whose folder is missing or closed, or, without ``force``, one that exists already."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise SourceError("is a folder", where=str(path), fix="name a file")
    if not folder.is_dir():
        raise SourceError(f"the folder {path.parent} does not exist", where=str(path), fix="make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise SourceError("cannot be written there", where=str(path), fix="name a file in another folder")
    if path.exists() and not force:
        raise SourceError("exists already", where=str(path), fix="name another file, or add --force")
