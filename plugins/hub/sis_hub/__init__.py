"""Models from where people have them: Hugging Face, the web, Python packages, Ollama's store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core import hookimpl

if TYPE_CHECKING:
    import click

    from sis_core.source import Source


@hookimpl
def sis_register_sources() -> list[Source]:
    from sis_hub.file_systems import FileSystemSource
    from sis_hub.hub import HubSource
    from sis_hub.ollama import OllamaSource
    from sis_hub.packages import PackageSource
    from sis_hub.safetensors_source import SafetensorsSource
    from sis_hub.web import WebSource
    from sis_hub.zoo import ZooSource

    hub = HubSource()
    others = [WebSource(hub), ZooSource(hub), SafetensorsSource(), PackageSource(), OllamaSource(), FileSystemSource()]
    return [hub, *others]


@hookimpl
def sis_register_commands() -> list[click.Command]:
    from sis_hub.commands import listing, pull, rm, verify

    return [pull.command, listing.command, rm.command, verify.command]
