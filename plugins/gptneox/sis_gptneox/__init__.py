"""The GPT-NeoX family: GPT-NeoX-20B, Pythia."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_gptneox.gptneox import GPTNeoX


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [GPTNeoX()]
