"""``sis serve``: a model over HTTP, by the APIs that clients already speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sis_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def sis_register_commands() -> list[click.Command]:
    from sis_server.batch.command import command as batch
    from sis_server.command import command as serve

    return [batch, serve]
