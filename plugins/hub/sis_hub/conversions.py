"""Checkpoints that were converted, each once, in sis's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from sis_core.registry import Registry
from sis_core.source import Progress
from sis_hub.folders import cache_folder
from sis_hub.kept import Kept, file_name
from sis_hub.listing import HashedListing
from sis_hub.verify import file_hash


@frozen
class Conversions:
    """GGUF files made of safetensors.

    Args:
        folder: where they are; by default ``converted`` in sis's cache.
    """

    folder: Path | None = None

    def of(
        self,
        checkpoint: Path,
        address: str,
        *,
        key: str = "",
        name: str = "",
        to: str = "",
        registry: Registry | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """The converted file, made now unless it is there.

        Args:
            checkpoint: a folder with config.json and safetensors files.
            address: what to type to get it again.
            key: what the checkpoint's content depends on; by default its files with their lengths and times.
            name: of the model; the folder's by default.
            to: a format or recipe for its matrices; by default each keeps its own.

        Raises:
            SisError: see `sis_hub.convert.run.convert`.
        """
        from sis_hub.convert.run import convert

        name = name or checkpoint.name
        target = self.target(key or _state(checkpoint), name, to)
        if not target.exists():
            convert(checkpoint, target, to=to, registry=registry, name=name, progress=progress)
            self._kept.note(target.parent, address, {target.name: file_hash(target)})
        return target

    def target(self, key: str, name: str, to: str = "") -> Path:
        """Where the file is, or will be."""
        suffix = f"-{to.upper()}" if to else ""
        return self._kept.place(f"{key}\0{to.lower()}") / file_name(f"{name}{suffix}.gguf")

    def list(self) -> Iterator[HashedListing]:
        """Every converted file."""
        return self._kept.list()

    def remove(self, address: str) -> bool:
        """Remove what was converted from an address; False when nothing was."""
        return self._kept.remove(address)

    @property
    def _kept(self) -> Kept:
        return Kept(self.folder or cache_folder() / "converted")


def _state(checkpoint: Path) -> str:
    """What a conversion depends on: the files of a folder, by name, length and time."""
    from sis_hub.convert.checkpoint import COMPANIONS

    real = checkpoint.resolve()
    files = [path for path in sorted(real.iterdir()) if path.suffix == ".safetensors" or path.name in COMPANIONS]
    return repr([str(real), *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)])
