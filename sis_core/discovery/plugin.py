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
        version: of its distribution, or empty for a single file or an object.
        origin: the distribution, or the path of a single file.
        named: the user named the file, and so means to use what it brings.
        error: why it, or a part of it, does not work; None when all does.
        cause: the exception behind that, where there is one.
        offers: names of what it brings, by kind.
    """

    name: str
    module: Any = None
    version: str = ""
    origin: str = ""
    error: str | None = None
    cause: BaseException | None = None
    named: bool = False
    offers: dict[str, list[str]] = field(factory=dict)

    @classmethod
    def installed(cls, entry_point: metadata.EntryPoint) -> Plugin:
        """What an entry point names; one that cannot be imported has its reason in ``error``."""
        about = entry_point.dist.metadata if entry_point.dist else None  # read from its file each time it is asked for
        plugin = cls(entry_point.name, origin=about["Name"] if about else "", version=about["Version"] if about else "")
        with Guard() as guard:
            plugin.module = entry_point.load()
        if guard.reason:
            plugin.error = f"cannot be imported: {guard.reason}"
        return plugin

    @classmethod
    def in_file(cls, path: Path) -> Plugin:
        """A single Python file that the user named; one that cannot be imported has its reason in ``error``."""
        plugin = cls(path.stem, origin=str(path), named=True)
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
