"""The source ``safetensors``: a folder as Hugging Face has it, or the safetensors file in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sis_core.errors import SourceError
from sis_core.registry import Registry
from sis_core.source import Progress, Source
from sis_hub.conversions import Conversions
from sis_hub.listing import HashedListing

SUFFIX = ".safetensors"


class SafetensorsSource(Source):
    """A path to a checkpoint, which is converted to GGUF once.

    Args:
        conversions: where the converted files are.
    """

    name = "safetensors"

    def __init__(self, conversions: Conversions | None = None) -> None:
        self._conversions = conversions or Conversions()

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The converted file; None when there is no checkpoint at that path.

        Raises:
            SisError: the checkpoint is incomplete or damaged, or its model is of no family that is known here.
        """
        return self.convert(reference, progress=progress)

    def convert(
        self, reference: str, to: str = "", registry: Registry | None = None, progress: Progress | None = None
    ) -> Path | None:
        """As `resolve`, with the matrices in the format or recipe ``to``."""
        folder = _folder(reference)
        if folder is None:
            return None
        address = f"{folder}:{to.lower()}" if to else str(folder)
        return self._conversions.of(folder, address, to=to, registry=registry, progress=progress)

    def list(self) -> Iterator[HashedListing]:
        """What was converted, from folders and from the hub."""
        return self._conversions.list()

    def remove(self, name: str) -> bool:
        """Remove what was converted from a folder; the folder stays."""
        try:
            return self._conversions.remove(name) or self._conversions.remove(str(Path(name).expanduser().absolute()))
        except RuntimeError:  # an unknown ~user
            return False


def _folder(reference: str) -> Path | None:
    """The folder of the checkpoint that ``reference`` is a path to."""
    from sis_hub.convert.checkpoint import CONFIG, is_checkpoint

    try:
        path = Path(reference).expanduser().absolute() if reference else None
        if path is None or not path.exists():
            return None
        if path.is_file() and path.suffix.lower() == SUFFIX:
            if not (path.parent / CONFIG).is_file():
                raise SourceError(
                    "this safetensors file has no config.json beside it, so nothing says what model it is",
                    where=reference,
                    fix="give the folder of the whole model, or hf://user/repo",
                )
            return path.parent
        return path if is_checkpoint(path) else None
    except (OSError, RuntimeError, ValueError):
        return None
