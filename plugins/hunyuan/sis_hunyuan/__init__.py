"""The Hunyuan family: Hunyuan 0.5B to 7B, dense."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_hunyuan.hunyuan import HunyuanDense


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [HunyuanDense()]
