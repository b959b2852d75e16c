"""A plugin as found: by an entry point, or in a single file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import define, field

from sis_core.discovery.guard import Guard


@define(eq=False)
class Plugin:
    """A plugin as found.

    Attributes:
        distribution: what was installed with it, or None for a single file or an object.
        file: that the user named, and so means to use what it brings.
        error: why it, or a part of it, does not work; None when all does.
        cause: the exception behind that, where there is one.
        offers: names of what it brings, by kind.
    """

    name: str
    module: Any = None
    distribution: metadata.Distribution | None = None
    file: Path | None = None
    error: str | None = None
    cause: BaseException | None = None
    offers: dict[str, list[str]] = field(factory=dict)

    @property
    def named(self) -> bool:
        """Whether the user named its file."""
        return self.file is not None

    @property
    def origin(self) -> str:
        """The name of its distribution, or the path of a single file; empty for an object."""
        if self.file is not None:
            return str(self.file)
        return self.distribution.metadata["Name"] if self.distribution else ""

    @property
    def version(self) -> str:
        """Of its distribution; empty for a single file or an object."""
        return self.distribution.version if self.distribution else ""

    @classmethod
    def installed(cls, entry_point: metadata.EntryPoint) -> Plugin:
        """What an entry point names; one that cannot be imported has its reason in ``error``."""
        plugin = cls(entry_point.name, distribution=entry_point.dist)
        with Guard() as guard:
            plugin.module = entry_point.load()
        if guard.reason:
            plugin.error = f"cannot be imported: {guard.reason}"
        return plugin

    @classmethod
    def in_file(cls, path: Path) -> Plugin:
        """A single Python file that the user named; one that cannot be imported has its reason in ``error``."""
        plugin = cls(path.stem, file=path)
        if not path.is_file():
            plugin.error = "no such file"
            return plugin
        unique = hashlib.sha1(str(path.resolve()).encode(), usedforsecurity=False).hexdigest()[:12]
        spec = importlib.util.spec_from_file_location(f"sis_plugin_{plugin.name}_{unique}", path)
        if spec is None or spec.loader is None:
            plugin.error = "is not a Python file"
            return plugin
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look their module up
        with Guard() as guard:
            spec.loader.exec_module(module)
        if guard.reason:
            del sys.modules[spec.name]
            plugin.error, plugin.cause = f"cannot be imported: {guard.reason}", guard.error
            return plugin
        plugin.module = module
        return plugin
