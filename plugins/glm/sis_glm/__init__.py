"""The GLM family: GLM-4 (2025), dense."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_glm.glm4 import Glm4
from sis_glm.glm4moe import Glm4Moe


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Glm4(), Glm4Moe()]
