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
from sis_core.errors import PluginError


@define(eq=False)
class Plugin:
    """A plugin as found.

    Attributes:
        version: of its distribution, or empty for a single file or an object.
        origin: the distribution, or the path of a single file.
        error: why it, or a part of it, does not work; None when all does.
        offers: names of what it brings, by kind.
    """

    name: str
    module: Any = None
    version: str = ""
    origin: str = ""
    error: str | None = None
    offers: dict[str, list[str]] = field(factory=dict)

    @classmethod
    def installed(cls, entry_point: metadata.EntryPoint) -> Plugin:
        """What an entry point names; one that cannot be imported has its reason in ``error``."""
        dist = entry_point.dist
        plugin = cls(entry_point.name, origin=dist.name if dist else "", version=dist.version if dist else "")
        with Guard() as guard:
            plugin.module = entry_point.load()
        if guard.reason:
            plugin.error = f"cannot be imported: {guard.reason}"
        return plugin

    @classmethod
    def in_file(cls, path: Path) -> Plugin:
        """A single Python file that the user named; PluginError when it cannot be imported."""
        if not path.is_file():
            raise PluginError("no such file", where=f"--plugin {path}")
        name = path.stem
        unique = hashlib.sha1(str(path.resolve()).encode(), usedforsecurity=False).hexdigest()[:12]
        spec = importlib.util.spec_from_file_location(f"sis_plugin_{name}_{unique}", path)
        if spec is None or spec.loader is None:
            raise PluginError("is not a Python file", where=f"--plugin {path}")
        module: ModuleType = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look their module up
        with Guard() as guard:
            spec.loader.exec_module(module)
        if guard.reason:
            del sys.modules[spec.name]
            raise PluginError(f"cannot be imported: {guard.reason}", where=f"--plugin {path}") from guard.error
        return cls(name, module, origin=str(path))
