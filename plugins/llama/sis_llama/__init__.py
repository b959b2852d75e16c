"""The LLaMA family: LLaMA 1 to 3, Mistral, TinyLlama, SmolLM."""

from __future__ import annotations

from typing import Any

from sis_core import hookimpl
from sis_core.architecture import Architecture
from sis_llama.llama import Llama


@hookimpl
def sis_register_architectures() -> list[Architecture[Any]]:
    return [Llama()]
