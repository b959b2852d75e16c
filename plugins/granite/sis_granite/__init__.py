"""The Granite family: Granite 3 and 4, dense and with experts."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_granite.granite import Granite


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Granite()]
