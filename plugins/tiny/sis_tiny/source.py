"""A source that knows one model: the file in this package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sis_core.errors import SourceError
from sis_core.source import Listing, Progress, Source

REINSTALL = "install it again: `pip install --force-reinstall sis-tiny`"


class TinySource(Source):
    """Answers to ``tiny``, and to no name at all.

    Args:
        folder: where ``tiny.gguf`` and its checksum ``tiny.gguf.sha256`` lie; this package by default.
    """

    name = "tiny"
    default = True

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(__file__).parent

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The model file, after its checksum was compared; SourceError when it is missing or damaged."""
        if reference not in ("", self.name):
            return None
        path = self._folder / "tiny.gguf"
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            wanted = (self._folder / "tiny.gguf.sha256").read_text("ascii").split()[0]
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise SourceError(
                f"the built-in model is missing a file: {error}", where=str(path), fix=REINSTALL
            ) from None
        if found != wanted:
            raise SourceError(
                f"the built-in model is damaged: its SHA-256 is {found[:12]}…, not {wanted[:12]}…",
                where=str(path),
                fix=REINSTALL,
            )
        return path

    def list(self) -> Iterable[Listing]:
        """The one model, where its file is."""
        path = self._folder / "tiny.gguf"
        return [Listing(self.name, path, path.stat().st_size, "MIT")] if path.is_file() else []
