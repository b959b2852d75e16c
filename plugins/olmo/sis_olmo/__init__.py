"""The OLMo family: OLMo 2 and 3."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_olmo.olmo2 import Olmo2


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Olmo2()]
