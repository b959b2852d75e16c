"""The source ``zoo``: short names for models that many people use. The names lie in ``zoo.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from attrs import frozen

from sis_core.source import Progress, Source
from sis_hub.hub import HubSource


@frozen
class ZooEntry:
    """Where a name leads, and the licence that was stated there when the name was given."""

    name: str
    model: str
    licence: str


class ZooSource(Source):
    """A name such as ``qwen3-0.6b``: another way to write an ``hf://`` reference.

    Args:
        hub: where the models are.
        manifest: TOML with a table for each name, as ``zoo.toml``; a third party's zoo is this class with another.
    """

    name = "zoo"

    def __init__(self, hub: HubSource, manifest: str | None = None) -> None:
        self._hub, self._manifest = hub, manifest

    @cached_property
    def entries(self) -> Mapping[str, ZooEntry]:
        """By name."""
        text = self._manifest or files("sis_hub").joinpath("zoo.toml").read_text("utf-8")
        return {name: ZooEntry(name, entry["model"], entry["licence"]) for name, entry in tomllib.loads(text).items()}

    def resolve(self, reference: str, progress: Progress | None = None) -> Path | None:
        """The model of that name, from the hub's cache or downloaded now; None for a name that is not in the zoo."""
        entry = self._entry(reference)
        return None if entry is None else self._hub.resolve(entry.model, progress)

    def pull(self, reference: str, progress: Progress | None = None) -> Path | None:
        """As `resolve`, but the hub is asked what it has now."""
        entry = self._entry(reference)
        return None if entry is None else self._hub.pull(entry.model, progress)

    def read(self, reference: str, start: int, n: int) -> bytes | None:
        """Bytes of the model of that name, as `HubSource.read`."""
        entry = self._entry(reference)
        return None if entry is None else self._hub.read(entry.model, start, n)

    def remove(self, name: str) -> bool:
        """Remove the model of that name from the hub's cache."""
        entry = self._entry(name)
        return entry is not None and self._hub.remove(entry.model)

    def _entry(self, reference: str) -> ZooEntry | None:
        return self.entries.get(reference.removeprefix(f"{self.name}:").removeprefix("//"))
