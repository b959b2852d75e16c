"""The hooks of a plugin: functions of its module, by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pluggy

from sis_core.errors import PluginError, suggest

PREFIX = "sis_register_"


class Hooks(pluggy.PluginManager):
    """Looks at functions with the names of hooks alone: pluggy examines whatever a module has."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(PREFIX) else None


def check_hooks(module: Any, known: Collection[str]) -> None:
    """PluginError where a module has none of the ``known`` hooks, one that is not known, or one that is not marked."""
    for name in dir(module):
        if name.startswith(PREFIX) and name not in known:
            raise PluginError(f"has a function {name}, but there is no such hook{suggest(name, sorted(known))}")
    hooks = [name for name in known if hasattr(module, name)]
    if not hooks:
        raise PluginError(
            "has none of the hooks of sis",
            fix="what it brings is returned by a function such as sis_register_samplers",
        )
    unmarked = [n for n in hooks if not hasattr(getattr(module, n), "sis_impl")]
    if unmarked:
        raise PluginError(f"{unmarked[0]} is not marked with @sis_core.hookimpl")
