"""The ERNIE family: ERNIE 4.5, dense and with experts."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_ernie.ernie4_5 import Ernie45
from sis_ernie.ernie4_5_moe import Ernie45Moe


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Ernie45(), Ernie45Moe()]
