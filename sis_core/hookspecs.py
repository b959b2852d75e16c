"""The eleven hooks. Each is called at most once per `Registry`, when its kind is first asked for, and returns records.

Nothing here is called while tokens flow. A plugin is any module or object with some of these functions, marked with
``@sis_core.hookimpl``, named by an entry point in the group ``sis``. A plugin that adds commands also names them in the
group ``sis.commands``, so that ``sis --help`` can list them without importing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from sis_core.architecture import Architecture
    from sis_core.backend import Backend
    from sis_core.chat import ChatFormat
    from sis_core.cluster import Cluster
    from sis_core.drafter import Drafter
    from sis_core.eviction import Eviction
    from sis_core.quant import QuantFormat
    from sis_core.sampler import Sampler
    from sis_core.source import Source
    from sis_core.tokenizer import TokenizerFactory

SIS_API = 2
"""Version of this contract. A plugin may state the one it was written for as ``sis_api``; another one is refused."""

hookspec = pluggy.HookspecMarker("sis")
hookimpl = pluggy.HookimplMarker("sis")


@hookspec
def sis_register_sources() -> Iterable[Source]:  # type: ignore[empty-body]
    """Return the places that models come from. Called when models are listed, or one that is no file here is named."""


@hookspec
def sis_register_architectures() -> Iterable[Architecture[Any]]:  # type: ignore[empty-body]
    """Return model families. Called when a model is first loaded."""


@hookspec
def sis_register_tokenizers() -> Iterable[TokenizerFactory]:  # type: ignore[empty-body]
    """Return factories of tokenizers. Called when text is first turned into tokens."""


@hookspec
def sis_register_quant_formats() -> Iterable[QuantFormat]:  # type: ignore[empty-body]
    """Return quantisation formats. Called when a model is first loaded or quantised."""


@hookspec
def sis_register_backends() -> Iterable[Backend]:  # type: ignore[empty-body]
    """Return backends. Called when a model is first loaded."""


@hookspec
def sis_register_samplers() -> Iterable[type[Sampler]]:  # type: ignore[empty-body]
    """Return sampler classes, whose attrs fields become command line options. Called when a chain is first made."""


@hookspec
def sis_register_chat_formats() -> Iterable[ChatFormat]:  # type: ignore[empty-body]
    """Return ways to write chats. Called when a chat is first opened."""


@hookspec
def sis_register_drafters() -> Iterable[type[Drafter]]:  # type: ignore[empty-body]
    """Return drafter classes, whose attrs fields become options. Called when a model is loaded to speculate."""


@hookspec
def sis_register_clusters() -> Iterable[Cluster]:  # type: ignore[empty-body]
    """Return ways to keep objects on other machines. Called when work is spread over several."""


@hookspec
def sis_register_evictions() -> Iterable[type[Eviction]]:  # type: ignore[empty-body]
    """Return eviction classes, whose attrs fields become options. Called when a text names one."""


@hookspec
def sis_register_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return commands for the ``sis`` program. Called only when one of the plugin's commands was typed."""
