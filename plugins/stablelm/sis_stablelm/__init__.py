"""The StableLM family: StableLM 2 1.6B and 12B, StableLM 3B."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_stablelm.stablelm import StableLM


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [StableLM()]
