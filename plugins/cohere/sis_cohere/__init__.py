"""The Cohere family: Command R, Command R+ and Command R7B."""

from __future__ import annotations

from typing import Any

from sis_cohere.command_r import Cohere2, CommandR
from sis_core import hookimpl
from sis_core.architecture import Architecture


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [CommandR(), Cohere2()]
