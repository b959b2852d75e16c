"""The registry: finds plugins, guards every one of their calls, and answers by kind and name.

It walks entry points itself, because a loader that imports them in one sweep lets one broken plugin take all others
down. Records keep the name of the plugin they came from. A registry is an object: `Registry.load()` in a program,
`Registry.of(...)` in tests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from attrs import define, field, frozen

from sis_core import hookspecs
from sis_core.architecture import Architecture
from sis_core.backend import Backend
from sis_core.chat import ChatFormat
from sis_core.drafter import Drafter
from sis_core.errors import PluginError, SisError, package_for, suggest
from sis_core.quant import QuantFormat
from sis_core.sampler import Sampler
from sis_core.source import Source
from sis_core.tokenizer import TokenizerFactory

GROUP = "sis"


@frozen
class Kind:
    """One kind of record: its hook, its base class, and the names a record answers to."""

    hook: str
    base: type
    noun: str
    names: Callable[[Any], Iterable[str]]
    classes: bool = False  # the hook returns classes, not instances


def _one(record: Any) -> list[str]:
    return [record.name]


def _format_names(record: QuantFormat) -> list[str]:
    return [record.name] + ([] if record.type_id is None else [f"type {record.type_id}"])


def _kinds() -> dict[str, Kind]:
    import click

    return {
        "sources": Kind("sis_register_sources", Source, "source", _one),
        "architectures": Kind("sis_register_architectures", Architecture, "architecture", lambda r: r.names),
        "tokenizers": Kind("sis_register_tokenizers", TokenizerFactory, "tokenizer", lambda r: [r.model]),
        "quant_formats": Kind("sis_register_quant_formats", QuantFormat, "format", _format_names),
        "backends": Kind("sis_register_backends", Backend, "backend", _one),
        "samplers": Kind("sis_register_samplers", Sampler, "sampler", _one, classes=True),
        "chat_formats": Kind("sis_register_chat_formats", ChatFormat, "chat format", _one),
        "drafters": Kind("sis_register_drafters", Drafter, "drafter", _one, classes=True),
        "commands": Kind("sis_register_commands", click.Command, "command", _one),
    }


@frozen(eq=False)
class Entry:
    """A record and the plugin it came from."""

    record: Any
    plugin: str


@define(eq=False)
class Plugin:
    """A plugin as found.

    Attributes:
        version: of its distribution, or empty for a single file or an object.
        origin: the distribution, or the path of a single file.
        error: why it does not work, or None.
    """

    name: str
    module: Any = None
    version: str = ""
    origin: str = ""
    error: str | None = None
    offers: dict[str, list[str]] = field(factory=dict)


class Registry:
    """Every plugin of one program, and the records they offer. Thread-safe."""

    def __init__(
        self, plugins: Sequence[Plugin], *, prefer: Mapping[str, str] | None = None, disabled: Iterable[str] = ()
    ) -> None:
        self.plugins = list(plugins)
        self.disabled = frozenset(disabled)
        self.prefer = dict(prefer or {})
        names = [plugin.name for plugin in self.plugins]
        for name, preferred in self.prefer.items():
            if preferred not in names:
                raise PluginError(
                    f"there is no plugin {preferred!r}{suggest(preferred, names)}",
                    where=f"--prefer {name}={preferred}",
                    fix="`sis plugins` lists them",
                )
        self._kinds = _kinds()
        self._entries: dict[str, list[Entry]] = {}
        self._lock = threading.RLock()
        self._manager = pluggy.PluginManager("sis")
        self._manager.add_hookspecs(hookspecs)
        for plugin in self.plugins:
            if plugin.error is None:
                self._register(plugin)

    @classmethod
    def load(
        cls,
        *,
        files: Sequence[str | Path] = (),
        disabled: Iterable[str] | None = None,
        prefer: Mapping[str, str] | None = None,
    ) -> Registry:
        """Every installed plugin, plus single ``files``, without those ``disabled`` (SIS_DISABLED_PLUGINS by default).

        A plugin that cannot be imported is kept with its reason; `PluginError` is raised only for a file that the
        user named.
        """
        if disabled is None:
            disabled = [name.strip() for name in os.environ.get("SIS_DISABLED_PLUGINS", "").split(",")]
        hidden = set(disabled)
        found = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
        installed = [_from_entry_point(point) for point in found if point.name not in hidden]
        named = [_from_file(Path(path)) for path in files]
        return cls([_builtin(), *installed, *named], prefer=prefer, disabled=hidden)

    @classmethod
    def of(cls, *modules: Any, prefer: Mapping[str, str] | None = None) -> Registry:
        """The core and the given modules or objects; nothing installed is looked for."""
        plugins = [_builtin()]
        for i, module in enumerate(modules):
            name = getattr(module, "__name__", None) or f"{type(module).__name__}-{i}"
            plugins.append(Plugin(name.rpartition(".")[2], module))
        return cls(plugins, prefer=prefer)

    @property
    def kinds(self) -> list[str]:
        """The names of all kinds of record."""
        return list(self._kinds)

    def entries(self, kind: str) -> list[Entry]:
        """All records of a kind: by score where they have one, then by plugin name. Calls the hooks once."""
        with self._lock:
            if kind not in self._entries:
                self._entries[kind] = self._collect(kind)
            return self._entries[kind]

    def records(self, kind: str) -> list[Any]:
        """The records of a kind, without those that lost a name to a preferred plugin."""
        clashes = self.clashes(kind)
        lost = {
            (name, plugin)
            for name, plugins in clashes.items()
            if (wanted := self.preferred(name)) in plugins
            for plugin in plugins
            if plugin != wanted
        }
        names = self._kinds[kind].names
        return [
            entry.record
            for entry in self.entries(kind)
            if not any((name, entry.plugin) in lost for name in names(entry.record))
        ]

    def preferred(self, name: str) -> str | None:
        """The plugin that the user prefers for a name, or for a type id (``type 42`` or ``42``)."""
        return self.prefer.get(name) or self.prefer.get(name.removeprefix("type "))

    def names(self, kind: str) -> list[str]:
        """Every name of a kind, sorted."""
        names = self._kinds[kind].names
        return sorted({name for entry in self.entries(kind) for name in names(entry.record)})

    def find(self, kind: str, name: str) -> Any | None:
        """The record that answers to ``name``, or None. PluginError when two plugins claim it and none is preferred."""
        names = self._kinds[kind].names
        claims = [entry for entry in self.entries(kind) if name in names(entry.record)]
        if len(claims) > 1:
            claims = self._preferred(kind, name, claims)
        return claims[0].record if claims else None

    def get(self, kind: str, name: str, *, where: str = "") -> Any:
        """The record that answers to ``name``; PluginError saying what is installed, or what to install."""
        found = self.find(kind, name)
        if found is None:
            noun, known = self._kinds[kind].noun, self.names(kind)
            package = package_for(kind, name)
            hint = "" if package else suggest(name, known)  # a name that some package has is not misspelt
            raise PluginError(
                f"no installed plugin brings the {noun} {name!r}{hint}", where=where, fix=self._remedy(package, known)
            )
        return found

    def _remedy(self, package: str | None, known: list[str]) -> str:
        """What to do when a name is missing: mend, enable or install the package known to bring it."""
        if package is None:
            return f"installed are: {', '.join(known) or 'none'}"
        for plugin in self.plugins:
            if plugin.origin == package and plugin.error:
                return f"the package {package} is installed, but {plugin.error}"
        if package.removeprefix("sis-") in self.disabled:
            return f"the package {package} is switched off by SIS_DISABLED_PLUGINS"
        return f"`pip install {package}`"

    def owner(self, kind: str, record: Any) -> str:
        """The name of the plugin that brought a record."""
        return next((entry.plugin for entry in self.entries(kind) if entry.record is record), "")

    def clashes(self, kind: str) -> dict[str, list[str]]:
        """Names of a kind that several plugins claim, with the plugins."""
        names = self._kinds[kind].names
        claims: dict[str, list[str]] = {}
        for entry in self.entries(kind):
            for name in names(entry.record):
                claims.setdefault(name, []).append(entry.plugin)
        return {name: plugins for name, plugins in claims.items() if len(plugins) > 1}

    def load_all(self) -> None:
        """Ask for every kind, so that `plugins` shows all that is offered and all that is broken."""
        for kind in self._kinds:
            self.entries(kind)

    def _preferred(self, kind: str, name: str, claims: list[Entry]) -> list[Entry]:
        wanted = self.preferred(name)
        chosen = [entry for entry in claims if entry.plugin == wanted]
        if len(chosen) == 1:
            return chosen
        plugins = " and ".join(dict.fromkeys(entry.plugin for entry in claims))
        short = name.removeprefix("type ")
        raise PluginError(
            f"the {self._kinds[kind].noun} {name!r} is claimed by two plugins: {plugins}",
            where=name,
            fix=f"choose one with --prefer {short}={claims[0].plugin}, or uninstall the other",
        )

    def _register(self, plugin: Plugin) -> None:
        if self._manager.has_plugin(plugin.name):
            first = next(other.origin for other in self.plugins if other.name == plugin.name)
            plugin.error = f"the name {plugin.name!r} is taken by the plugin of {first or 'another module'}"
            return
        api = getattr(plugin.module, "sis_api", hookspecs.SIS_API)
        if api != hookspecs.SIS_API:
            plugin.error = f"speaks sis_api {api}, but this sis-core speaks {hookspecs.SIS_API}"
            return
        try:
            self._manager.register(plugin.module, plugin.name)
            self._check_hooks(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a stranger's module must not end the program
            plugin.error = _reason(error)
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)

    def _check_hooks(self, plugin: Plugin) -> None:
        known = {kind.hook for kind in self._kinds.values()}
        for name in dir(plugin.module):
            if name.startswith("sis_register_") and name not in known:
                raise PluginError(f"has a function {name}, but there is no such hook{suggest(name, sorted(known))}")
        hooks = [name for name in known if hasattr(plugin.module, name)]
        if not hooks:
            raise PluginError("has none of the hooks of sis")
        unmarked = [n for n in hooks if not hasattr(getattr(plugin.module, n), "sis_impl")]
        if unmarked:
            raise PluginError(f"{unmarked[0]} is not marked with @sis_core.hookimpl")

    def _collect(self, kind: str) -> list[Entry]:
        spec = self._kinds[kind]
        found: list[Entry] = []
        by_name = {plugin.name: plugin for plugin in self.plugins if plugin.error is None}
        for implementation in getattr(self._manager.hook, spec.hook).get_hookimpls():
            plugin = by_name[implementation.plugin_name]
            try:
                records = _checked(spec, implementation.function())
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                plugin.error = f"{spec.hook} failed: {_reason(error)}"
                continue
            plugin.offers[kind] = sorted(name for record in records for name in spec.names(record))
            found += [Entry(record, plugin.name) for record in records]
        return sorted(found, key=lambda entry: (-getattr(entry.record, "score", 0), entry.plugin))


def _checked(kind: Kind, records: Any) -> list[Any]:
    listed = list(records)
    for record in listed:
        fits = (
            isinstance(record, type) and issubclass(record, kind.base)
            if kind.classes
            else isinstance(record, kind.base)
        )
        if not fits:
            what = "a subclass" if kind.classes else "an instance"
            raise PluginError(f"returned {record!r}, which is not {what} of {kind.base.__name__}")
        if not isinstance(getattr(record, "score", 0), int | float):
            raise PluginError(f"returned {record!r}, whose score is not a number")
        names = list(kind.names(record))
        if not names or not all(isinstance(name, str) and name for name in names):
            raise PluginError(f"returned {record!r} without a name")
    return listed


def _builtin() -> Plugin:
    from sis_core.backends import builtin

    return Plugin("core", builtin, version=metadata.version("sis-core"), origin="sis-core")


def _from_entry_point(entry_point: metadata.EntryPoint) -> Plugin:
    dist = entry_point.dist
    plugin = Plugin(entry_point.name, origin=dist.name if dist else "", version=dist.version if dist else "")
    try:
        plugin.module = entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's module raises must not stop the others
        plugin.error = f"cannot be imported: {_reason(error)}"
    return plugin


def _from_file(path: Path) -> Plugin:
    if not path.is_file():
        raise PluginError("no such file", where=f"--plugin {path}")
    name = path.stem
    unique = hashlib.sha1(str(path.resolve()).encode(), usedforsecurity=False).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"sis_plugin_{name}_{unique}", path)
    if spec is None or spec.loader is None:
        raise PluginError("is not a Python file", where=f"--plugin {path}")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[spec.name]
        raise PluginError(f"cannot be imported: {_reason(error)}", where=f"--plugin {path}") from error
    return Plugin(name, module, origin=str(path))


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    return first if isinstance(error, SisError) else f"{type(error).__name__}: {first}"
