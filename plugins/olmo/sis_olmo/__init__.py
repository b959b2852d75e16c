"""The OLMo family: OLMo 2 and 3, and OLMoE."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_olmo.olmo2 import Olmo2
from sis_olmo.olmoe import Olmoe


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Olmo2(), Olmoe()]
