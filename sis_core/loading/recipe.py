"""How a model is loaded, as plain data: another process, or another machine, loads the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from attrs import frozen

from sis_core.loading.options import LoadOptions
from sis_core.registry import Registry
from sis_core.source import Preset


@frozen
class Recipe:
    """
    Attributes:
        path: the file, which lies in the same place everywhere.
        options: how it is loaded.
        preset: what its source has set.
        plugins: files of plugins that were named, beside those that are installed.
        prefer: which plugin a name is taken from.
        disabled: plugins that are left out.
    """

    path: Path
    options: LoadOptions
    preset: Preset
    plugins: tuple[str, ...]
    prefer: Mapping[str, str]
    disabled: frozenset[str]

    @classmethod
    def of(cls, path: Path, options: LoadOptions, preset: Preset, registry: Registry) -> Self:
        """For the plugins of a registry."""
        plugins = tuple(str(Path(plugin.origin).absolute()) for plugin in registry.plugins if plugin.named)
        return cls(path.absolute(), options, preset, plugins, registry.prefer, registry.disabled)

    def registry(self) -> Registry:
        """The same plugins, here; PluginError where one is not to be had."""
        return Registry.load(files=self.plugins, prefer=self.prefer, disabled=self.disabled)
