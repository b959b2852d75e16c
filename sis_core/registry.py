"""The registry: finds plugins, guards every one of their calls, and answers by kind and name.

It walks entry points itself, because a loader that imports them in one sweep lets one broken plugin take all others
down. Records keep the name of the plugin they came from. A registry is an object: `Registry.load()` in a program,
`Registry.of(...)` in tests.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from attrs import frozen

from sis_core import hookspecs
from sis_core.architecture import Architecture
from sis_core.backend import Backend
from sis_core.chat import ChatFormat
from sis_core.cluster import Cluster
from sis_core.discovery.fields import undeclared
from sis_core.discovery.guard import Guard
from sis_core.discovery.hooks import Hooks, check_hooks
from sis_core.discovery.plugin import Plugin
from sis_core.drafter import Drafter
from sis_core.errors import PluginError, package_for, suggest
from sis_core.eviction import Eviction
from sis_core.machine.collector import no_collection
from sis_core.quant import QuantFormat
from sis_core.sampler import Sampler
from sis_core.source import Source, is_model_file
from sis_core.tokenizer import TokenizerFactory

log = logging.getLogger(__name__)

GROUP = "sis"
FROM_FILES = ("architectures", "tokenizers")  # kinds whose names come from files, not from people


@frozen
class Kind:
    """One kind of record: its hook, its base class, and the names a record answers to."""

    hook: str
    _base: type | str  # or where it is: few programs ask for commands, and click takes long to import
    noun: str
    names: Callable[[Any], Iterable[str]]
    classes: bool = False  # the hook returns classes, not instances

    @property
    def base(self) -> type:
        return resolve_name(self._base) if isinstance(self._base, str) else self._base


def _one(record: Any) -> list[str]:
    return [record.name]


def _format_names(record: QuantFormat) -> list[str]:
    return [record.name] + ([] if record.type_id is None else [f"type {record.type_id}"])


def _kinds() -> dict[str, Kind]:
    return {
        "sources": Kind("sis_register_sources", Source, "source", _one),
        "architectures": Kind("sis_register_architectures", Architecture, "architecture", lambda r: r.names),
        "tokenizers": Kind("sis_register_tokenizers", TokenizerFactory, "tokenizer", lambda r: [r.model]),
        "quant_formats": Kind("sis_register_quant_formats", QuantFormat, "format", _format_names),
        "backends": Kind("sis_register_backends", Backend, "backend", _one),
        "samplers": Kind("sis_register_samplers", Sampler, "sampler", _one, classes=True),
        "chat_formats": Kind("sis_register_chat_formats", ChatFormat, "chat format", _one),
        "drafters": Kind("sis_register_drafters", Drafter, "drafter", _one, classes=True),
        "clusters": Kind("sis_register_clusters", Cluster, "cluster", _one),
        "evictions": Kind("sis_register_evictions", Eviction, "eviction", _one, classes=True),
        "commands": Kind("sis_register_commands", "click:Command", "command", _one),
    }


@frozen(eq=False)
class Entry:
    """A record, the plugin it came from, and what it said of itself when it was first asked."""

    record: Any
    plugin: str
    names: tuple[str, ...]
    score: float


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
        self._manager = Hooks("sis")
        self._manager.add_hookspecs(hookspecs)
        for plugin in self.plugins:
            if plugin.error is None:
                self._register(plugin)

    @classmethod
    @no_collection()
    def load(
        cls,
        *,
        files: Sequence[str | Path] = (),
        disabled: Iterable[str] | None = None,
        prefer: Mapping[str, str] | None = None,
        keep_broken: bool = False,
    ) -> Registry:
        """Every installed plugin, plus single ``files``, without those ``disabled`` (SIS_DISABLED_PLUGINS by default).

        A plugin that cannot be imported is kept with its reason, but a file was named to be used. A name in
        ``disabled`` that no plugin has is a warning.

        Args:
            keep_broken: keep such files with their reasons too, for a listing.

        Raises:
            PluginError: a file that cannot be read or imported, does not register, or returns what is no record.
        """
        if disabled is None:
            disabled = [name.strip() for name in os.environ.get("SIS_DISABLED_PLUGINS", "").split(",")]
        hidden = {name for name in disabled if name}
        found = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
        names = [point.name for point in found]
        for name in sorted(hidden - set(names)):
            log.warning("SIS_DISABLED_PLUGINS: no plugin is called %r%s", name, suggest(name, names))
        installed = [Plugin.installed(point) for point in found if point.name not in hidden]
        named = [Plugin.in_file(Path(path)) for path in files]
        registry = cls([_builtin(), *installed, *named], prefer=prefer, disabled=hidden)
        if named and not keep_broken:
            registry._refuse_broken_files()
        return registry

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
        return [
            entry.record
            for entry in self.entries(kind)
            if not any((name, entry.plugin) in lost for name in entry.names)
        ]

    def sources_for(self, reference: str | None) -> Sequence[Source]:
        """The sources to ask about a model: none about a file that is here and is called ``.gguf``, so that nothing of
        theirs is imported for it, or stands in its way."""
        return () if is_model_file(reference) else self.records("sources")

    def preferred(self, name: str) -> str | None:
        """The plugin that the user prefers for a name, or for a type id (``type 42`` or ``42``)."""
        return self.prefer.get(name) or self.prefer.get(name.removeprefix("type "))

    def names(self, kind: str) -> list[str]:
        """Every name of a kind, sorted."""
        return sorted({name for entry in self.entries(kind) for name in entry.names})

    def find(self, kind: str, name: str) -> Any | None:
        """The record that answers to ``name``, or None. PluginError when two plugins claim it and none is preferred."""
        claims = [entry for entry in self.entries(kind) if name in entry.names]
        if len(claims) > 1:
            claims = self._preferred(kind, name, claims)
        return claims[0].record if claims else None

    def get(self, kind: str, name: str, *, where: str = "") -> Any:
        """The record that answers to ``name``; PluginError saying what is installed, or what to install."""
        if not isinstance(name, str):
            raise PluginError(f"{name!r:.60} is not the name of a {self._kinds[kind].noun}", where=where)
        found = self.find(kind, name)
        if found is None:
            noun, known = self._kinds[kind].noun, self.names(kind)
            package = package_for(kind, name)
            spelt = kind not in FROM_FILES and package is None  # a file does not misspell, nor is a known name misspelt
            hint = suggest(name, known) if spelt else ""
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
        claims: dict[str, list[str]] = {}
        for entry in self.entries(kind):
            for name in entry.names:
                claims.setdefault(name, []).append(entry.plugin)
        return {name: plugins for name, plugins in claims.items() if len(plugins) > 1}

    def load_all(self) -> None:
        """Ask for every kind, so that `plugins` shows all that is offered and all that is broken."""
        for kind in self._kinds:
            self.entries(kind)

    def _refuse_broken_files(self) -> None:
        self.load_all()
        for plugin in self.plugins:
            if plugin.named and plugin.error:
                raise PluginError(plugin.error, where=f"--plugin {plugin.origin}") from plugin.cause

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
        with Guard() as guard:
            self._manager.register(plugin.module, plugin.name)
            check_hooks(plugin.module, {kind.hook for kind in self._kinds.values()})
        if guard.reason:
            plugin.error = guard.reason
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)

    def _collect(self, kind: str) -> list[Entry]:
        spec = self._kinds[kind]
        found: list[Entry] = []
        by_name = {plugin.name: plugin for plugin in self.plugins}
        for implementation in getattr(self._manager.hook, spec.hook).get_hookimpls():
            plugin = by_name[implementation.plugin_name]
            with Guard() as guard:
                entries = [_entry(spec, record, plugin.name) for record in implementation.function()]
            if guard.reason:  # what its other hooks bring still works
                plugin.error = plugin.error or f"{spec.hook} failed: {guard.reason}"
                continue
            plugin.offers[kind] = sorted(name for entry in entries for name in entry.names)
            found += entries
        return sorted(found, key=lambda entry: (-entry.score, entry.plugin))


def _entry(kind: Kind, record: Any, plugin: str) -> Entry:
    """A record that a hook returned, checked; PluginError when it is not of its kind."""
    fits = isinstance(record, type) and issubclass(record, kind.base) if kind.classes else isinstance(record, kind.base)
    if not fits:
        raise PluginError(f"returned {record!r}, which is not {_wanted(kind, record)}")
    if kind.classes and (fault := undeclared(record)):
        raise PluginError(f"returned {record!r}, which {fault}")
    score = getattr(record, "score", 0)
    if not isinstance(score, int | float):
        raise PluginError(f"returned {record!r}, whose score is not a number")
    try:
        names = tuple(kind.names(record))
    except AttributeError:
        names = ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise PluginError(f"returned {record!r} without a name")
    return Entry(record, plugin, names, score)


def _wanted(kind: Kind, record: Any) -> str:
    """What a hook should have returned in place of ``record``, with the remedy for the usual mistake."""
    if kind.classes:
        mistake = f": return the class {type(record).__name__} itself" if isinstance(record, kind.base) else ""
        return f"a subclass of {kind.base.__name__}{mistake}"
    is_class = isinstance(record, type) and issubclass(record, kind.base)
    return f"an instance of {kind.base.__name__}{f': return {record.__name__}()' if is_class else ''}"


def _builtin() -> Plugin:
    from sis_core.backends import builtin

    return Plugin("core", builtin, metadata.distribution("sis-core"))
