"""The GPT-2 family."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_gpt2.gpt2 import GPT2


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [GPT2()]
