"""The StarCoder family: StarCoder 2."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_starcoder.starcoder2 import StarCoder2


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [StarCoder2()]
