"""The Gemma family: Gemma 1, 2 and 3 (text)."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_gemma.gemma import Gemma, Gemma2, Gemma3


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Gemma(), Gemma2(), Gemma3()]
