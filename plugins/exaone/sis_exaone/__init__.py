"""The EXAONE family: EXAONE 4."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_exaone.exaone4 import Exaone4


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Exaone4()]
